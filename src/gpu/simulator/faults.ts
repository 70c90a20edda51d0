import type { Driver } from "./driver.ts";

/** The command lines a fault can be limited to. */
export const commandKinds = ["table", "list", "xml", "query", "stream", "apps", "help", "topology", "version"] as const;
export type CommandKind = (typeof commandKinds)[number];

/** What can go wrong, by the name a scenario gives it. */
export type FaultEffect =
  | { readonly kind: "driverMissing" | "libraryMissing" | "mismatch" | "permission" | "noDevices" }
  | { readonly kind: "allLost" | "hang" | "garbage" }
  | { readonly kind: "lostGpu" | "handleFailure" | "hostileNames"; readonly gpu: number }
  | { readonly kind: "slow"; readonly ms: number }
  | { readonly kind: "halfDocument"; readonly end: "exit" | "hang" }
  | { readonly kind: "override"; readonly gpu: number; readonly values: Readonly<Record<string, string>> };

/** A fault with the time it holds: from `afterMs` after the scenario's start, for `forMs` (for ever where absent). */
export type Fault = FaultEffect & {
  readonly afterMs: number;
  readonly forMs?: number;
  readonly on?: readonly CommandKind[];
};

/** Faults in force `elapsedMs` after the scenario's start, for this command line. */
export function faultsAt(faults: readonly Fault[], elapsedMs: number, command: CommandKind): Fault[] {
  return faults.filter(
    (fault) =>
      elapsedMs >= fault.afterMs &&
      (fault.forMs === undefined || elapsedMs < fault.afterMs + fault.forMs) &&
      (fault.on === undefined || fault.on.includes(command)),
  );
}

/** What nvidia-smi says instead of an answer: always on stdout, with nothing on stderr. */
export interface Failure {
  readonly text: string;
  readonly exitCode: number;
}

export const noDevices: Failure = { text: "No devices were found\n", exitCode: 6 };

/** `nvmlInit` failing with GPU_IS_LOST, as a fresh process sees it once every GPU fell off the bus. */
const initLost: Failure = { text: "Failed to initialize NVML: GPU is lost\n", exitCode: 15 };

function mismatch(driver: Driver): Failure {
  const text = "Failed to initialize NVML: Driver/library version mismatch\n";
  // Up to 470 the process ended with a bare -1 and did not name the library.
  if (driver.major < 525) return { text, exitCode: 255 };
  return { text: `${text}NVML library version: ${driver.nvml}\n`, exitCode: 18 };
}

/** The failure that keeps nvidia-smi from starting at all, or undefined. Nothing else is looked at before it. */
export function startFailure(faults: readonly Fault[], driver: Driver): Failure | undefined {
  for (const fault of faults) {
    switch (fault.kind) {
      case "libraryMissing":
        return {
          text:
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display " +
            "Driver is properly installed and present in your system.\n" +
            "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n",
          exitCode: 12,
        };
      case "driverMissing":
        return {
          text:
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest " +
            "NVIDIA driver is installed and running.\n\n",
          exitCode: 9,
        };
      case "mismatch":
        return mismatch(driver);
      case "permission":
        return { text: "Failed to initialize NVML: Insufficient Permissions\n", exitCode: 4 };
      case "allLost":
        return initLost;
      default:
        break;
    }
  }
  return undefined;
}

/** The line that stands in for a GPU whose handle cannot be had; the index is named since 525. */
export function handleFailureLine(driver: Driver, gpu: { readonly index: number; readonly busId: string }): string {
  const busId = gpu.busId.slice(4);
  const subject = driver.major >= 525 ? `GPU${gpu.index}: ${busId}` : `GPU ${busId}`;
  return `Unable to determine the device handle for ${subject}: GPU is lost.  Reboot the system to recover this GPU`;
}

/** Bytes no reader expects: control characters, broken UTF-8, an unclosed tag. Always the same. */
export const garbage = Buffer.from([
  0, 1, 0xff, 0xfe, 60, 103, 112, 117, 32, 105, 100, 61, 10, 27, 91, 52, 109, 0xc3, 10,
]);

/** Process names that break a naive reader: markup, a newline, commas, a control character, another GPU's row. */
export const hostileProcesses = [
  { pid: 4242, name: 'python <&> ]]></process_name><x>"evil" -c a,b', usedMiB: 0, type: "C" },
  { pid: 4343, name: "a\nGPU-fake, 1, spoof, 99999\tb\u0001\u00e9", usedMiB: 0, type: "C" },
] as const;
