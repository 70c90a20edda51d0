import { advice, command, type Step, shell } from "./check.ts";
import type { SystemFacts, ToolkitFacts } from "./facts.ts";

/** Families that packages are had from in the same way. */
type Family = "debian" | "ubuntu" | "fedora" | "rhel" | "arch" | "suse" | "nixos";

/** undefined where nobody here knows how packages are had. */
export function familyOf({ os: { id, like } }: SystemFacts): Family | undefined {
  const names = [id, ...like];
  const has = (...wanted: string[]) => wanted.some((name) => names.includes(name));
  if (has("ubuntu")) return "ubuntu";
  if (has("debian")) return "debian";
  if (has("rhel", "centos")) return "rhel";
  if (has("fedora")) return "fedora";
  if (has("arch")) return "arch";
  if (names.some((name) => name.includes("suse"))) return "suse";
  return has("nixos") ? "nixos" : undefined;
}

const INSTALL: Readonly<Record<Exclude<Family, "nixos">, readonly string[]>> = {
  debian: ["apt-get", "install"],
  ubuntu: ["apt-get", "install"],
  fedora: ["dnf", "install"],
  rhel: ["dnf", "install"],
  arch: ["pacman", "-S"],
  suse: ["zypper", "install"],
};

/** Installs a package that has the same name everywhere; in words where nobody knows how. */
export function installs(system: SystemFacts, name: string): Step {
  const family = familyOf(system);
  if (family === "nixos") return advice(`add ${name} to environment.systemPackages and rebuild`);
  return family === undefined ? advice(`install the package ${name}`) : command(...INSTALL[family], name);
}

const DRIVER_GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/";

/** Names as the distributions' own pages on NVIDIA's driver have them: wiki.debian.org/NvidiaGraphicsDrivers, RPM Fusion's Howto/NVIDIA, ArchWiki. */
export function driverSteps(system: SystemFacts): readonly Step[] {
  switch (familyOf(system)) {
    case "ubuntu":
      return [command("ubuntu-drivers", "install"), command("reboot")];
    case "debian":
      return [
        advice("it is in the component non-free of Debian's package source"),
        command("apt-get", "install", `linux-headers-${architecture(system)}`, "nvidia-driver", "nvidia-smi"),
        command("reboot"),
      ];
    case "fedora":
      return [
        advice("it is in RPM Fusion's repository (https://rpmfusion.org/Configuration)"),
        command("dnf", "install", "akmod-nvidia", "xorg-x11-drv-nvidia-cuda"),
        command("reboot"),
      ];
    case "arch":
      return [command("pacman", "-S", "nvidia-open-dkms", "nvidia-utils", "linux-headers"), command("reboot")];
    case "nixos":
      return [advice('set services.xserver.videoDrivers = [ "nvidia" ], hardware.nvidia and rebuild')];
    default:
      return [advice(`install NVIDIA's driver: ${DRIVER_GUIDE}`)];
  }
}

/** Debian's word for it. */
function architecture({ architecture: name }: SystemFacts): string {
  return name === "x64" ? "amd64" : name;
}

const TOOLKIT_GUIDE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html";
const TOOLKIT_HOST = "https://nvidia.github.io/libnvidia-container";
const KEYRING = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg";

/** NVIDIA's own way of it, less the package source where that is set up; then Docker is told, and started again. */
export function toolkitSteps(system: SystemFacts, { hasSource }: Pick<ToolkitFacts, "hasSource">): readonly Step[] {
  const name = "nvidia-container-toolkit";
  const family = familyOf(system);
  const configure = [
    command("nvidia-ctk", "runtime", "configure", "--runtime=docker"),
    command("systemctl", "restart", "docker"),
  ];
  switch (family) {
    case "ubuntu":
    case "debian":
      return [
        ...(hasSource ? [] : debianSource()),
        command("apt-get", "update"),
        command("apt-get", "install", name),
        ...configure,
      ];
    case "fedora":
    case "rhel": {
      const source = shell(`curl -sL ${TOOLKIT_HOST}/stable/rpm/${name}.repo | sudo tee /etc/yum.repos.d/${name}.repo`);
      return [...(hasSource ? [] : [source]), command("dnf", "install", name), ...configure];
    }
    case "suse": {
      const source = command("zypper", "addrepo", `${TOOLKIT_HOST}/stable/rpm/${name}.repo`);
      return [...(hasSource ? [] : [source]), command("zypper", "install", name), ...configure];
    }
    case "arch":
      return [command("pacman", "-S", name), ...configure];
    case "nixos":
      return [advice("set hardware.nvidia-container-toolkit.enable = true and rebuild")];
    default:
      return [advice(`install NVIDIA's container toolkit: ${TOOLKIT_GUIDE}`), ...configure];
  }
}

function debianSource(): Step[] {
  return [
    shell(`curl -fsSL ${TOOLKIT_HOST}/gpgkey | sudo gpg --dearmor -o ${KEYRING}`),
    shell(
      `curl -fsSL ${TOOLKIT_HOST}/stable/deb/nvidia-container-toolkit.list | sed 's#deb https://#deb [signed-by=${KEYRING}] https://#' | sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list`,
    ),
  ];
}

/** Docker Engine, as the distribution has it; RHEL and its kin have none. */
export function dockerSteps(system: SystemFacts): readonly Step[] {
  const family = familyOf(system);
  const start = command("systemctl", "enable", "--now", "docker");
  switch (family) {
    case "debian":
    case "ubuntu":
      return [command("apt-get", "install", "docker.io"), start];
    case "fedora":
      return [command("dnf", "install", "moby-engine"), start];
    case "arch":
      return [command("pacman", "-S", "docker"), start];
    case "suse":
      return [command("zypper", "install", "docker"), start];
    case "nixos":
      return [advice("set virtualisation.docker.enable = true and rebuild")];
    default:
      return [advice("install Docker Engine: https://docs.docker.com/engine/install/"), start];
  }
}
