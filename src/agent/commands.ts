import type { AgentCommand } from "../link/needs.ts";
import type { Drain } from "../preemption/drain.ts";
import type { Supervisor } from "../workload/supervisor.ts";

export interface CommandDoors {
  supervisor: Supervisor;
  drain: Drain;
  /** Pulls an image ahead of need. */
  prefetch(command: Extract<AgentCommand, { type: "prefetch" }>): Promise<void>;
  setTelemetryInterval(intervalMs: number): void;
  /** The node's state is another. */
  changed(): void;
}

/** Carries out what a coordinator commands. Throws `GpunodeError` where it is refused. */
export function executor(doors: CommandDoors): (command: AgentCommand) => void | Promise<void> {
  const { supervisor, drain, changed } = doors;
  return (command) => {
    switch (command.type) {
      case "assign":
        return supervisor.assign(command.workload);
      case "release":
        return supervisor.release(command.workload, command.graceSeconds);
      case "preempt": {
        const { workload, graceSeconds, reason } = command;
        supervisor.preempt([workload], {
          cause: "coordinator",
          ...(graceSeconds !== undefined && { graceSeconds }),
          ...(reason !== undefined && { message: reason }),
        });
        return;
      }
      case "drain":
        drain.start({
          cause: "coordinator",
          ...(command.graceSeconds !== undefined && { graceSeconds: command.graceSeconds }),
        });
        return changed();
      case "resume":
        drain.lift();
        return changed();
      case "prefetch":
        return doors.prefetch(command);
      case "configure":
        if (command.telemetryIntervalMs !== undefined) doors.setTelemetryInterval(command.telemetryIntervalMs);
        return;
    }
  };
}
