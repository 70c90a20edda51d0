import type { Hello } from "../protocol/agent-frames.ts";
import { rotationBytes } from "../protocol/identity.ts";
import type { Identity } from "./identity.ts";
import type { LinkLog } from "./needs.ts";

/** How an attempt to take a new key ended. */
export type RotationEnd = { isDone: true; nodeId: string; replaces: string } | { isDone: false; message: string };

/**
 * Moves this node to a new key (docs/decisions/017-a-new-key-is-introduced-by-the-old.md). The new key waits on the disk;
 * each `hello` of the old one introduces it, until a coordinator says that it knows the node by the new one (it takes
 * over), or welcomes the old one without a word of it (it is dropped: that coordinator can't do it).
 *
 * A coordinator may turn down a `hello` only because of what is new in it, so after a refusal the next one leaves the new
 * key out. If that is welcome, the old key is still the right one. If it is not (the coordinator has moved us, and its word got
 * lost), the one after that brings the new key again.
 */
export class KeyRotation {
  readonly #identity: Identity;
  readonly #log: LinkLog;
  #isOffered = false;
  #turnedDown: string | undefined;
  #waiting: PromiseWithResolvers<RotationEnd> | undefined;

  constructor(identity: Identity, log: LinkLog) {
    this.#identity = identity;
    this.#log = log;
  }

  /** Begins, or goes on with what was begun. Settles when a coordinator has answered; never rejects. */
  begin(): Promise<RotationEnd> {
    this.#identity.prepareNext();
    this.#waiting ??= Promise.withResolvers();
    return this.#waiting.promise;
  }

  /** What the next `hello` says of it. */
  offer(host: string, nonce: string): Hello["rotation"] {
    const { next } = this.#identity;
    this.#isOffered = next !== undefined && this.#turnedDown === undefined;
    if (next === undefined || !this.#isOffered) return undefined;
    const bytes = rotationBytes(host, nonce, this.#identity.nodeId, next.publicKey);
    const [proof, signature] = [this.#identity, next].map((key) => key.sign(bytes).toString("base64url"));
    return { publicKey: next.publicKey, proof: proof ?? "", signature: signature ?? "" };
  }

  /** The old key was welcomed; with `rotatedTo`, as the new one. Throws where the disk refuses: the next session says it again. */
  welcomed(rotatedTo: string | undefined): void {
    const { next, nodeId } = this.#identity;
    if (next === undefined) return;
    if (this.#isOffered && rotatedTo === next.nodeId) {
      this.#identity.adoptNext();
      this.#log.info({ node: next.nodeId, replaces: nodeId }, "this node has a new key; the old one is gone");
      this.#end({ isDone: true, nodeId: next.nodeId, replaces: nodeId });
    } else if (this.#isOffered || this.#turnedDown !== undefined) {
      const why = this.#turnedDown ?? "it does not know how to change a node's key";
      const message = `the coordinator did not take the new key, so this node keeps the one it has: ${why}; "gpunode enroll --rotate" tries again`;
      this.#identity.dropNext();
      this.#log.warn({ node: nodeId }, message);
      this.#end({ isDone: false, message });
    }
  }

  /** The coordinator would not have our `hello`. */
  turnedDown(message: string): void {
    this.#turnedDown = this.#isOffered ? message : undefined;
    this.#isOffered = false;
  }

  #end(end: RotationEnd): void {
    this.#isOffered = false;
    this.#turnedDown = undefined;
    this.#waiting?.resolve(end);
    this.#waiting = undefined;
  }
}
