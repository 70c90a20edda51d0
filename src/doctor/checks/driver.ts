import type { SmiProblem } from "../../gpu/nvidia/runner.ts";
import { advice, type Check, check, command, failure, note, ok, type Step, skipped, warning } from "../check.ts";
import type { DriverFacts, SystemFacts } from "../facts.ts";
import { driverSteps, familyOf } from "../remedies.ts";
import { list } from "../words.ts";

const SIMULATED = "the GPUs are simulated";

/** The modules of NVIDIA's driver, who uses them first. Those that are not loaded are no error to modprobe. */
const RELOAD: readonly Step[] = [
  command("gpunode", "drain", "--maintenance"),
  command("modprobe", "-r", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia"),
  command("modprobe", "nvidia"),
  advice("or reboot, where a desktop holds the modules"),
];

/** NVIDIA's driver: whether it is there, whole, and stays. */
export const DRIVER_CHECKS: readonly Check[] = [
  check({
    id: "nvidia-smi",
    title: "The driver answers",
    looks: "`nvidia-smi -q -x`, and the NVIDIA boards on the PCI bus",
    why: "without it no GPU is seen, and none is lent",
    mends: "install or load NVIDIA's driver; what exactly, depends on what `nvidia-smi` said",
    needs: ["gpus", "driver", "system"],
    judge({ gpus: { inventory, simulated, smi }, driver, system }) {
      const { gpus, problems, driverVersion } = inventory;
      const [first] = problems;
      if (first !== undefined && gpus.length === 0) {
        if (driver.boards.length === 0 && !simulated) {
          return warning(`${first.message}. The PCI bus has no NVIDIA board: this node runs work without GPUs`);
        }
        return failure(first.message, smiSteps(first, driver, system));
      }
      if (first !== undefined) return failure(problems.map(({ message }) => message).join("; "));
      const names = new Map<string, number>();
      for (const { name } of gpus) names.set(name, (names.get(name) ?? 0) + 1);
      const boards = [...names].map(([name, count]) => `${count} × ${name}`);
      return ok(`${list(boards)}, driver ${driverVersion ?? "unknown"}${simulated ? `, simulated by ${smi}` : ""}`);
    },
  }),
  check({
    id: "driver-match",
    title: "Kernel module and library are one version",
    looks: "`/proc/driver/nvidia/version` and the versions of `libnvidia-ml.so`",
    why: "after an upgrade without a reboot new programs and containers cannot use the GPUs, while those that run go on",
    mends: "reboot; or empty the node and load the module anew",
    needs: ["driver", "gpus"],
    judge({ driver: { loaded, libraries }, gpus }) {
      const told = gpus.inventory.problems.find(({ code }) => code === "driver_mismatch");
      if (told === undefined && gpus.simulated) return skipped(SIMULATED);
      if (told !== undefined) {
        const versions = loaded === undefined || libraries.length === 0 ? told.message : differ(loaded, libraries);
        return failure(versions, [command("reboot"), advice("or, without a reboot:"), ...RELOAD]);
      }
      if (loaded === undefined) return skipped("the kernel module is not loaded");
      if (libraries.length === 0)
        return skipped(`the driver's library was not found where it usually lies (module ${loaded})`);
      if (libraries.includes(loaded)) return ok(`both are ${loaded}`);
      return failure(differ(loaded, libraries), [command("reboot"), advice("or, without a reboot:"), ...RELOAD]);
    },
  }),
  check({
    id: "nouveau",
    title: "No other driver holds a board",
    looks: "which kernel driver each NVIDIA board is bound to (`/sys/bus/pci`)",
    why: "a board that nouveau or vfio-pci holds cannot compute here",
    mends: "install NVIDIA's driver, which keeps nouveau away, and reboot; take a board back from its virtual machine",
    needs: ["driver", "system"],
    judge({ driver: { boards, isNouveauLoaded }, system }) {
      const nouveau = boards.filter(({ driver }) => driver === "nouveau").map(({ address }) => address);
      if (nouveau.length > 0) {
        return failure(`nouveau, the free driver, holds ${list(nouveau)}`, driverSteps(system));
      }
      const passed = boards.filter(({ driver }) => driver === "vfio-pci").map(({ address }) => address);
      if (passed.length > 0) return note(`given to virtual machines (vfio-pci), so not lent: ${list(passed)}`);
      if (isNouveauLoaded && boards.length > 0) {
        const steps = [
          {
            kind: "write",
            path: "/etc/modprobe.d/blacklist-nouveau.conf",
            text: "blacklist nouveau\n",
            mode: 0o644,
          } as const,
          initramfs(system),
        ];
        return warning("nouveau is loaded, though it holds no board now", steps);
      }
      if (boards.length === 0) return skipped("the PCI bus has no NVIDIA board");
      return ok("every board is NVIDIA's driver's");
    },
  }),
  check({
    id: "driver-next-boot",
    title: "The driver is there after the next boot",
    looks: "whether the newest kernel in `/lib/modules` has an NVIDIA module",
    why: "a kernel upgrade for which no module was built takes all GPUs away at the next reboot",
    mends: "install the headers of that kernel and let DKMS build the module",
    needs: ["driver", "system", "gpus"],
    judge({ driver, system, gpus }) {
      if (gpus.simulated) return skipped(SIMULATED);
      const newest = system.kernels.at(-1);
      if (newest === undefined || driver.boards.length === 0)
        return skipped("no kernel or no NVIDIA board is in sight");
      if (driver.kernelsWithModule.length === 0) return skipped("the driver's module lies in no usual place");
      if (driver.kernelsWithModule.includes(newest)) return ok(`kernel ${newest} has it`);
      return warning(
        `kernel ${newest} is installed and has no NVIDIA module; ${system.kernel} runs now`,
        moduleSteps(system, newest),
      );
    },
  }),
  check({
    id: "device-files",
    title: "The GPUs' device files are there and open",
    looks: "`/dev/nvidia0` …, `/dev/nvidiactl`, `/dev/nvidia-uvm` and their modes",
    why: "CUDA needs `/dev/nvidia-uvm`, which only appears when something asks for it; `nvidia-smi` works without",
    mends: "`nvidia-modprobe -u -c 0`",
    needs: ["driver", "gpus", "service"],
    judge({ driver: { devices }, gpus, service: { user } }) {
      if (gpus.simulated) return skipped(SIMULATED);
      if (gpus.inventory.gpus.length === 0) return skipped("no GPU answers");
      const closed = [...devices].filter(([, { mode }]) => (mode & 0o006) !== 0o006).map(([path]) => path);
      if (closed.length > 0) {
        return warning(
          `${list(closed)} ${closed.length === 1 ? "is" : "are"} closed to ordinary users, such as ${user.name} and most containers'`,
          [
            advice(
              "remove NVreg_DeviceFileMode and NVreg_ModifyDeviceFiles from /etc/modprobe.d, or set them to 0666 and 1",
            ),
          ],
        );
      }
      const missing = ["/dev/nvidiactl", "/dev/nvidia-uvm"].filter((path) => !devices.has(path));
      if (missing.length === 0) return ok(`${devices.size} are there, open to all`);
      // The toolkit's hook makes the second one by itself, CDI does not.
      const tell = missing.includes("/dev/nvidiactl") ? warning : note;
      const found = `${list(missing)} ${missing.length === 1 ? "is" : "are"} not there`;
      return tell(found, [command("nvidia-modprobe", "-u", "-c", "0")], "safe");
    },
  }),
];

function differ(loaded: string, libraries: readonly string[]): string {
  return `the kernel runs module ${loaded}, the library is ${list(libraries)}`;
}

function smiSteps(
  { code }: SmiProblem,
  { boards, hasSecureBoot, libraries }: DriverFacts,
  system: SystemFacts,
): readonly Step[] {
  switch (code) {
    case "not_found":
    case "no_library":
      return driverSteps(system);
    case "no_driver": {
      // Installed, and not in the kernel: unsigned, not built, or another driver has the board.
      if (libraries.length === 0 || boards.some(({ driver }) => driver === "nouveau")) return driverSteps(system);
      const signed = advice(
        "Secure Boot is on: the module must be signed with a key that the firmware knows (mokutil --import)",
      );
      return [command("modprobe", "nvidia"), ...(hasSecureBoot ? [signed] : []), ...moduleSteps(system, system.kernel)];
    }
    case "driver_mismatch":
      return [command("reboot")];
    case "timeout":
      return [command("dmesg", "--level=err,warn"), command("reboot")];
    default:
      return [];
  }
}

/** Builds the module for a kernel. */
function moduleSteps(system: SystemFacts, kernel: string): readonly Step[] {
  switch (familyOf(system)) {
    case "debian":
    case "ubuntu":
      return [command("apt-get", "install", `linux-headers-${kernel}`), command("dkms", "autoinstall", "-k", kernel)];
    case "fedora":
    case "rhel":
      return [command("dnf", "install", `kernel-devel-${kernel}`), command("akmods", "--kernels", kernel)];
    case "arch":
      return [command("dkms", "autoinstall", "-k", kernel)];
    default:
      return [advice(`build NVIDIA's module for the kernel ${kernel}`)];
  }
}

function initramfs(system: SystemFacts): Step {
  const family = familyOf(system);
  if (family === "debian" || family === "ubuntu") return command("update-initramfs", "-u");
  return family === "arch" ? command("mkinitcpio", "-P") : command("dracut", "--force");
}
