import type { AgentCommand } from "../link/needs.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodePreemption } from "./preemption.ts";

export interface CommandDoors {
  supervisor: Supervisor;
  preemption: NodePreemption;
  /** Pulls an image ahead of need. */
  prefetch(command: Extract<AgentCommand, { type: "prefetch" }>): Promise<void>;
  setTelemetryInterval(intervalMs: number): void;
}

/** Carries out what a coordinator commands. Throws `GpunodeError` where it is refused. */
export function executor(doors: CommandDoors): (command: AgentCommand) => void | Promise<void> {
  const { supervisor, preemption } = doors;
  return (command) => {
    switch (command.type) {
      case "assign":
        return supervisor.assign(command.workload);
      case "release":
        return supervisor.release(command.workload, command.graceSeconds);
      case "preempt": {
        const { workload, graceSeconds, reason } = command;
        preemption.requireCoordinator();
        supervisor.preempt([workload], {
          cause: "coordinator",
          ...(graceSeconds !== undefined && { graceSeconds }),
          ...(reason !== undefined && { message: reason }),
        });
        return;
      }
      case "drain":
        return preemption.coordinatorDrain(
          command.graceSeconds === undefined ? {} : { graceSeconds: command.graceSeconds },
        );
      case "resume":
        return preemption.coordinatorResume();
      case "prefetch":
        return doors.prefetch(command);
      case "configure":
        if (command.telemetryIntervalMs !== undefined) doors.setTelemetryInterval(command.telemetryIntervalMs);
        return;
    }
  };
}
