import type * as z from "zod";
import type { Reply, ReplyError } from "../protocol/agent-frames.ts";
import type { CommandAnswer, CommandBody } from "./session-doors.ts";

export const GONE: ReplyError = { code: "internal", message: "the node is not connected" };

/** Commands that were sent to one agent and have no reply yet. */
export class PendingCommands {
  readonly #send: (frame: object) => void;
  readonly #timeoutMs: number;
  readonly #waiting = new Map<string, (answer: CommandAnswer) => void>();

  constructor(send: (frame: object) => void, { timeoutMs }: { timeoutMs: number }) {
    this.#send = send;
    this.#timeoutMs = timeoutMs;
  }

  /** Sends it, and resolves with its reply, or with why there is none. Never rejects. */
  send(id: string, command: CommandBody): Promise<CommandAnswer> {
    return new Promise((resolve) => {
      const settle = (answer: CommandAnswer) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        resolve(answer);
      };
      const timer = setTimeout(() => {
        const message = `the node did not answer "${command.type}" within ${this.#timeoutMs / 1000} s`;
        settle({ ok: false, why: "silent", error: { code: "internal", message } });
      }, this.#timeoutMs);
      this.#waiting.set(id, settle);
      this.#send({ ...command, id });
    });
  }

  replied(reply: z.infer<typeof Reply>): void {
    const answer: CommandAnswer = reply.ok ? { ok: true } : { ok: false, why: "refused", error: reply.error };
    this.#waiting.get(reply.ref)?.(answer);
  }

  /** No reply can come any more. */
  giveUp(): void {
    for (const settle of [...this.#waiting.values()]) settle({ ok: false, why: "gone", error: GONE });
  }
}
