import { hostname } from "node:os";
import { parseMeminfo, parsePressureSome10 } from "../../host/proc.ts";
import type { UpgradeFacts } from "../facts.ts";
import type { Machine } from "../machine.ts";
import { aptSettings, heldBack, installedPackages } from "../packages.ts";
import type { Reader } from "./reader.ts";

/** A few small files. */
const FILES_MS = 2_000;
/** D-Bus starts the time service's interface on demand. */
const TIMEDATECTL_MS = 3_000;

export const system: Reader<"system"> = {
  limitMs: FILES_MS,
  read({ machine }) {
    const release = keyValues(machine.text("/etc/os-release") ?? machine.text("/usr/lib/os-release") ?? "");
    const kernels = machine
      .names("/lib/modules")
      .filter((name) => machine.look(`/lib/modules/${name}/modules.dep`) !== undefined)
      .sort(byVersion);
    const rebootFor = rebootPackages(machine);
    const glibc = glibcVersion();
    return {
      hostname: machine.text("/proc/sys/kernel/hostname")?.trim() ?? hostname(),
      os: {
        id: release.get("ID") ?? "linux",
        like: (release.get("ID_LIKE") ?? "").split(" ").filter((name) => name !== ""),
        name: release.get("PRETTY_NAME") ?? "Linux",
      },
      kernel: machine.text("/proc/sys/kernel/osrelease")?.trim() ?? "",
      kernels,
      architecture: process.arch,
      isRoot: process.geteuid?.() === 0,
      hasSystemd: machine.look("/run/systemd/system") !== undefined,
      ...(glibc !== undefined && { glibc }),
      node: process.version,
      ...(rebootFor !== undefined && { rebootFor }),
    };
  },
};

/** os-release(5), and whatever else has `KEY=value` or `KEY="value"` a line. The last one counts. */
export function keyValues(text: string): Map<string, string> {
  const found = text.matchAll(/^[ \t]*([A-Za-z_]+)[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([^\n#;]*))/gm);
  return new Map(
    [...found].map(([, key = "", double, single, plain]) => [key, (double ?? single ?? plain ?? "").trim()]),
  );
}

/** Debian's and Ubuntu's word for "somebody waits for a reboot", with who. */
function rebootPackages(machine: Machine): string[] | undefined {
  if (machine.look("/run/reboot-required") === undefined) return undefined;
  const names = (machine.text("/run/reboot-required.pkgs") ?? "").split("\n").filter((line) => line !== "");
  return [...new Set(names)];
}

function glibcVersion(): string | undefined {
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork: boolean };
  const before = report.excludeNetwork;
  // Otherwise the report asks the resolver for the name of every open connection.
  report.excludeNetwork = true;
  try {
    return (report.getReport() as { header?: { glibcVersionRuntime?: string } }).header?.glibcVersionRuntime;
  } finally {
    report.excludeNetwork = before;
  }
}

/** `6.1.0-9-amd64` before `6.1.0-10-amd64`. */
export function byVersion(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

export const memory: Reader<"memory"> = {
  limitMs: FILES_MS,
  read({ machine }) {
    const text = machine.text("/proc/meminfo") ?? "";
    const sizes = parseMeminfo(text);
    if (sizes === undefined) return { missing: "/proc/meminfo cannot be read" };
    const stallPercent = parsePressureSome10(machine.text("/proc/pressure/memory") ?? "");
    return {
      totalMiB: sizes.totalMiB,
      availableMiB: sizes.availableMiB ?? sizes.totalMiB,
      swapTotalMiB: mebibytes(text, "SwapTotal"),
      swapFreeMiB: mebibytes(text, "SwapFree"),
      ...(stallPercent !== undefined && { stallPercent }),
    };
  },
};

function mebibytes(meminfo: string, field: string): number {
  const kibibytes = new RegExp(`^${field}: +(\\d+) kB$`, "m").exec(meminfo)?.[1];
  return Math.floor(Number(kibibytes ?? 0) / 1024);
}

export const clock: Reader<"clock"> = {
  limitMs: TIMEDATECTL_MS + 500,
  async read({ machine, now }, _had, signal) {
    const argv = ["timedatectl", "show", "--property=NTPSynchronized", "--property=NTP", "--property=CanNTP"];
    const ran = await machine.run(argv, { timeoutMs: TIMEDATECTL_MS, signal });
    const told = keyValues("code" in ran && ran.code === 0 ? ran.stdout : "");
    const flag = (name: string) => (told.has(name) ? told.get(name) === "yes" : undefined);
    const isSynchronized = flag("NTPSynchronized");
    const isServiceOn = flag("NTP");
    const canSwitchOn = flag("CanNTP");
    return {
      nowMs: now(),
      ...(isSynchronized !== undefined && { isSynchronized }),
      ...(isServiceOn !== undefined && { isServiceOn }),
      ...(canSwitchOn !== undefined && { canSwitchOn }),
    };
  },
};

/** What `systemctl suspend`, lid switches and desktops all go through. */
export const SLEEP_TARGETS = ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"];

export const sleep: Reader<"sleep"> = {
  limitMs: FILES_MS,
  read({ machine }) {
    if (machine.look("/run/systemd/system") === undefined) return { missing: "no systemd runs here" };
    const isMasked = (target: string) => machine.link(`/etc/systemd/system/${target}`) === "/dev/null";
    const settings = logindSettings(machine);
    return {
      // Who cannot reach sleep.target sleeps in no way.
      open: isMasked("sleep.target") ? [] : SLEEP_TARGETS.filter((target) => !isMasked(target)),
      hasLid: machine.names("/proc/acpi/button/lid").length > 0,
      // The defaults of logind.conf(5).
      lidSwitch: settings.get("HandleLidSwitch") ?? "suspend",
      lidSwitchExternalPower:
        settings.get("HandleLidSwitchExternalPower") ?? settings.get("HandleLidSwitch") ?? "suspend",
      idleAction: settings.get("IdleAction") ?? "ignore",
      hasDesktop: machine.link("/etc/systemd/system/display-manager.service") !== undefined,
    };
  },
};

/** The main file first, then what was dropped in; the last word counts. */
function logindSettings(machine: Machine): Map<string, string> {
  const dropIns = ["/usr/lib", "/run", "/etc"].flatMap((top) => {
    const folder = `${top}/systemd/logind.conf.d`;
    return machine
      .names(folder)
      .filter((name) => name.endsWith(".conf"))
      .map((name) => `${folder}/${name}`);
  });
  const files = ["/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf", ...dropIns];
  return keyValues(files.map((file) => machine.text(file) ?? "").join("\n"));
}

/** Packages that hold the driver's kernel module or the libraries that must match it, over distributions. */
const DRIVER_PACKAGES =
  /^(?:nvidia-(?:driver|dkms|kernel|open|headless|utils|compute-utils)|linux-modules-nvidia|libnvidia-(?:compute|ml)|libcuda1$|cuda-drivers|libnvidia-cfg)/;

export const upgrades: Reader<"upgrades"> = {
  limitMs: 4_000,
  async read({ machine }, _had, signal) {
    const status = machine.text("/var/lib/dpkg/status");
    if (status !== undefined) return aptUpgrades(machine, status);
    const isAutomatic = /^\s*apply_updates\s*=\s*(?:yes|true|1|on)/im.test(
      machine.text("/etc/dnf/automatic.conf") ?? "",
    );
    const timers = machine.names("/etc/systemd/system/timers.target.wants");
    if (!isAutomatic || !timers.some((name) => /^dnf5?-automatic.*\.timer$/.test(name))) return { loose: [] };
    if (/nvidia/.test(machine.text("/etc/dnf/plugins/versionlock.list") ?? ""))
      return { by: "dnf-automatic", loose: [] };
    const argv = ["rpm", "-qa", "--queryformat", "%{NAME}\\n", "*nvidia*"];
    const ran = await machine.run(argv, { timeoutMs: 3_000, signal });
    const names = "code" in ran && ran.code === 0 ? ran.stdout.split("\n") : [];
    const loose = names.filter((name) =>
      /^(?:akmod-nvidia|kmod-nvidia|nvidia-driver|nvidia-open|xorg-x11-drv-nvidia)/.test(name),
    );
    return { by: "dnf-automatic", loose };
  },
};

function aptUpgrades(machine: Machine, status: string): UpgradeFacts {
  const folder = "/etc/apt/apt.conf.d";
  const texts = machine.names(folder).map((name) => machine.text(`${folder}/${name}`) ?? "");
  const { period, blacklist } = aptSettings(texts.join("\n"));
  const isThere = machine.program("unattended-upgrade") !== undefined;
  if (!isThere || period === 0) return { loose: [] };
  const drivers = installedPackages(status).filter(({ name }) => DRIVER_PACKAGES.test(name));
  const loose = drivers.filter(({ name, isHeld }) => !isHeld && !heldBack(name, blacklist));
  return { by: "unattended-upgrades", loose: loose.map(({ name }) => name) };
}
