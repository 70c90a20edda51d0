import type { ContainerState } from "./needs.ts";
import type { WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";

/**
 * The one thing to do next for a workload, told from its record and its container as the engine shows it. Pure: after
 * a crash anywhere the same two inputs give the step that was interrupted, or the one after it, so nothing is done
 * twice and nothing is left out.
 *
 *     accepted ─ pull ─ create ─ start ─ wait ─ finish ─ remove ─ done
 *                                  └─ restart ┘
 *     a stop order turns each of them into stop / finish
 */
export type Step =
  | { do: "pull" }
  | { do: "create" }
  | { do: "start"; container: ContainerState }
  /** The container runs but the record does not say so yet (a crash between the two). */
  | { do: "markRunning"; container: ContainerState }
  | { do: "wait"; container: ContainerState }
  | { do: "restart"; container: ContainerState }
  | { do: "stop"; container: ContainerState }
  /** It has ended; `container` is how, absent where it never ran or is gone. */
  | { do: "finish"; container?: ContainerState }
  | { do: "remove"; container: ContainerState }
  | { do: "done" };

export function nextStep(record: WorkloadRecord, container: ContainerState | undefined): Step {
  if (isTerminal(record.state)) {
    if (container === undefined) return { do: "done" };
    // Given up on (the engine was away too long) and running all the same: it must not outlive its record.
    return isUp(container) ? { do: "stop", container } : { do: "remove", container };
  }
  if (record.stop !== undefined || record.state === "stopping") {
    if (container === undefined) return { do: "finish" };
    return isUp(container) ? { do: "stop", container } : { do: "finish", container };
  }
  if (container === undefined) {
    switch (record.state) {
      case "accepted":
      case "pulling":
        return { do: "pull" };
      case "starting":
        return record.imageId === undefined ? { do: "pull" } : { do: "create" };
      default:
        return { do: "finish" };
    }
  }
  if (isUp(container)) return record.state === "running" ? { do: "wait", container } : { do: "markRunning", container };
  if (container.status === "created") return { do: "start", container };
  // It ran and ended before anyone looked: it is told as running first, so that no state is ever skipped.
  if (record.state === "starting" && container.startedAt !== undefined && container.error === "") {
    return { do: "markRunning", container };
  }
  return mayRestart(record, container) ? { do: "restart", container } : { do: "finish", container };
}

/** True while the container's processes live. */
export function isUp(container: ContainerState): boolean {
  return container.status === "running" || container.status === "paused" || container.status === "restarting";
}

function mayRestart(record: WorkloadRecord, container: ContainerState): boolean {
  const { policy, maxRetries } = record.spec.restart;
  // A container that was created and never ran shows an error here; running it again would fail the same way.
  return (
    policy === "on-failure" &&
    record.state === "running" &&
    container.exitCode !== 0 &&
    container.error === "" &&
    (record.restarts < maxRetries || alreadyCounted(record, container))
  );
}

/** True where this very end was counted as a restart already, by an agent that did not get to start it again. */
export function alreadyCounted(record: WorkloadRecord, container: ContainerState): boolean {
  return container.finishedAt !== undefined && record.restartedAfter === container.finishedAt;
}

/** How a workload ended, as its last event tells it. */
export interface Ending {
  state: "succeeded" | "failed" | "stopped" | "preempted";
  reason?: string;
  message?: string;
  exitCode?: number;
  oomKilled?: boolean;
}

/** Reads the ending from the stop order and the container's last state. */
export function endingOf(record: WorkloadRecord, container: ContainerState | undefined): Ending {
  const ran = container !== undefined && container.startedAt !== undefined && container.status !== "created";
  const exit = ran ? { exitCode: container.exitCode, oomKilled: container.oomKilled } : {};
  // It came to its own good end before the order's first signal.
  const finished = ran && container.exitCode === 0 && container.error === "" && !isUp(container);
  if (finished && record.state !== "stopping") return { state: "succeeded", ...exit };
  if (record.stop !== undefined) {
    const { outcome, reason, message } = record.stop;
    return { state: outcome, reason, ...(message !== undefined && { message }), ...exit };
  }
  if (container === undefined) {
    return {
      state: "failed",
      reason: "container_gone",
      message: `container ${containerLabel(record)} is gone: somebody or something other than gpunode removed it`,
    };
  }
  if (container.error !== "") return { state: "failed", reason: "start_failed", message: container.error, ...exit };
  if (container.oomKilled && container.exitCode !== 0) {
    const limit = record.limits?.memoryMiB ?? record.spec.resources.memoryMiB;
    return {
      state: "failed",
      reason: "oom_killed",
      message: `ran out of memory${limit === undefined ? "" : `: the limit is ${limit} MiB; ask for more resources.memoryMiB`}`,
      ...exit,
    };
  }
  // The kernel killed a child for memory, but the main process coped and ended well: that is a success.
  if (container.exitCode === 0) return { state: "succeeded", ...exit };
  return { state: "failed", reason: "exit_code", message: describeExit(container.exitCode), ...exit };
}

/** Exit codes of containers above 128 are signals (128 + n). Names from signal(7), x86 and arm numbering. */
const SIGNAL_NAMES: Readonly<Record<number, string>> = {
  1: "SIGHUP",
  2: "SIGINT",
  3: "SIGQUIT",
  4: "SIGILL",
  6: "SIGABRT",
  7: "SIGBUS",
  8: "SIGFPE",
  9: "SIGKILL",
  11: "SIGSEGV",
  13: "SIGPIPE",
  14: "SIGALRM",
  15: "SIGTERM",
};

function describeExit(code: number): string {
  const signal = SIGNAL_NAMES[code - 128];
  return signal === undefined ? `exited with code ${code}` : `ended by ${signal} (exit code ${code})`;
}

function containerLabel(record: WorkloadRecord): string {
  return record.containerId === undefined ? "of this workload" : record.containerId.slice(0, 12);
}
