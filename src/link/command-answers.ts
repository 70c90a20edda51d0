import type { Command } from "../protocol/coordinator-frames.ts";
import { BUG, GpunodeError } from "../protocol/errors.ts";
import { LogStreams } from "./log-streams.ts";
import type { AgentCommand, LinkDoors } from "./needs.ts";
import type { Outbox } from "./outbox.ts";

/**
 * Has commands carried out and answers each with one `reply`. They begin in the order they came; one that takes long
 * (`prefetch`) holds up no other.
 */
export class CommandAnswers implements AsyncDisposable {
  readonly #doors: LinkDoors;
  readonly #outbox: Outbox;
  readonly #logs: LogStreams;

  constructor(doors: LinkDoors, outbox: Outbox) {
    this.#doors = doors;
    this.#outbox = outbox;
    this.#logs = new LogStreams(doors, outbox);
  }

  take(command: Command): void {
    const accept = () => void this.#outbox.send({ type: "reply", ref: command.id, ok: true });
    try {
      if (command.type === "logs") this.#logs.open(command, accept);
      else if (command.type === "logsStop") {
        this.#logs.stop(command.ref);
        accept();
      } else {
        void this.#carryOut(command, accept);
      }
    } catch (error) {
      this.#refuse(command, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#logs[Symbol.asyncDispose]();
  }

  /** Never rejects. */
  async #carryOut(command: AgentCommand, accept: () => void): Promise<void> {
    try {
      await this.#doors.onCommand(command);
      accept();
    } catch (error) {
      this.#refuse(command, error);
    }
  }

  #refuse({ id, type }: Command, error: unknown): void {
    if (error instanceof GpunodeError) {
      const { code, message, details } = error;
      const answer = { code, message, ...(details !== undefined && { details }) };
      this.#outbox.send({ type: "reply", ref: id, ok: false, error: answer });
      return;
    }
    // Neither the reply nor the log gets the message: it may quote the command, and the command may carry secrets.
    this.#doors.log.error(
      { command: type, ...whereOf(error) },
      `a command failed with an error that is no refusal: ${BUG}`,
    );
    const message = `${type} failed with an internal error; the agent's log says where`;
    this.#outbox.send({ type: "reply", ref: id, ok: false, error: { code: "internal", message } });
  }
}

/** Kind and place of an error, without its message. */
function whereOf(error: unknown): { error: string; at: string[] } {
  if (!(error instanceof Error)) return { error: typeof error, at: [] };
  const lines = error.stack?.split("\n") ?? [];
  return { error: error.name, at: lines.map((line) => line.trim()).filter((line) => /^at .*:\d+:\d+\)?$/.test(line)) };
}
