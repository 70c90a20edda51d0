import type { Hello } from "../protocol/agent-frames.ts";
import { Challenge, Reject, Welcome } from "../protocol/coordinator-frames.ts";
import { ErrorFrame } from "../protocol/error-frame.ts";
import { helloBytes } from "../protocol/identity.ts";
import { MAX_RESUMED_EVENT } from "../protocol/limits.ts";
import { check, type FrameProblem, type RawFrame } from "../protocol/parse.ts";
import type { LinkDoors } from "./needs.ts";
import type { KeyRotation } from "./rotation.ts";

/** What a frame of the handshake calls for. */
export type HandshakeStep =
  | { kind: "hello"; hello: Hello }
  /** `coordinator` names it for the memory of welcomes. */
  | { kind: "welcome"; welcome: Welcome; coordinator: string }
  | { kind: "reject"; reject: Reject }
  /** The coordinator could not use our `hello`; it will close. */
  | { kind: "complaint"; error: { code: string; message: string } }
  | { kind: "violation"; problem: FrameProblem };

export interface HandshakeOptions {
  /** The Host header that was sent. */
  host: string;
  joinToken?: string;
  rotation: KeyRotation;
}

/**
 * Steps 1 to 3 of the contract, from the agent's side: `challenge` is answered with `hello`, once; then only `welcome` or
 * `reject` may come. It sends nothing itself.
 */
export class Handshake {
  readonly #doors: LinkDoors;
  readonly #options: HandshakeOptions;
  #coordinator: string | undefined;

  constructor(doors: LinkDoors, options: HandshakeOptions) {
    this.#doors = doors;
    this.#options = options;
  }

  take(frame: RawFrame): HandshakeStep {
    if (frame.type === "error") return read(ErrorFrame, frame, (error) => ({ kind: "complaint", error }));
    if (frame.type === "reject") return read(Reject, frame, (reject) => ({ kind: "reject", reject }));
    const coordinator = this.#coordinator;
    if (coordinator === undefined) {
      if (frame.type !== "challenge") return outOfOrder(frame, '"challenge" comes first');
      return read(Challenge, frame, (challenge) => ({ kind: "hello", hello: this.#answer(challenge) }));
    }
    if (frame.type !== "welcome") return outOfOrder(frame, 'after "hello" comes "welcome" or "reject"');
    return read(Welcome, frame, (welcome) => {
      const { acked } = welcome;
      if (acked <= Math.max(this.#doors.events.newest, MAX_RESUMED_EVENT))
        return { kind: "welcome", welcome, coordinator };
      const message = `welcome: acked is ${acked}, and beyond its own log this node numbers on from ${MAX_RESUMED_EVENT} at most`;
      return { kind: "violation", problem: { code: "bad_message", message } };
    });
  }

  #answer({ nonce, coordinatorId }: Challenge): Hello {
    const { identity, events, memory } = this.#doors;
    const { host, joinToken, rotation } = this.#options;
    const { node, workloads } = this.#doors.describeNode();
    // Both, so that a coordinator that was made anew at the same address is given the token again.
    const coordinator = `${host} ${coordinatorId}`;
    this.#coordinator = coordinator;
    const introduced = rotation.offer(host, nonce);
    return {
      type: "hello",
      node: { ...node, id: identity.nodeId, publicKey: identity.publicKey },
      signature: identity.sign(helloBytes(host, nonce, identity.nodeId)).toString("base64url"),
      ...(joinToken !== undefined && !memory.hasWelcomed(coordinator, identity.nodeId) && { joinToken }),
      ...(introduced !== undefined && { rotation: introduced }),
      events: { oldest: events.oldest, newest: events.newest },
      workloads,
    };
  }
}

function read<T>(
  schema: Parameters<typeof check<T>>[0],
  frame: RawFrame,
  use: (value: T) => HandshakeStep,
): HandshakeStep {
  const parsed = check(schema, frame, frame.type, frame.id);
  return parsed.ok ? use(parsed.value) : { kind: "violation", problem: parsed.problem };
}

function outOfOrder(frame: RawFrame, rule: string): HandshakeStep {
  const message = `"${frame.type.slice(0, 60)}" came too early: ${rule}`;
  return { kind: "violation", problem: { code: "bad_message", message } };
}
