import type { KeyObject } from "node:crypto";
import type { Hello } from "../protocol/agent-frames.ts";
import {
  helloBytes,
  nodeIdOf,
  publicKeyFrom,
  rawPublicKey,
  rotationBytes,
  verifySignature,
} from "../protocol/identity.ts";
import { CLOSE } from "../protocol/limits.ts";

/** Why a node is not let in, as `reject` tells it, and the close code that follows. */
export interface Rejection {
  closeCode: number;
  code: string;
  message: string;
  retryAfterSeconds?: number;
  /** What the operator can do about it; for the log alone. */
  remedy?: string;
}

/**
 * Holds a `hello` against what only the key's owner can know: the id follows from the key, and the signature is this
 * key's over the host it dialled and the nonce of this very socket. Returns what is wrong, undefined where it holds.
 * Whether the key may come in at all is the database's question.
 */
export function refuteHello(
  hello: Hello,
  socket: {
    host: string | undefined;
    nonce: string;
    hosts: { accepts(host: string | undefined): boolean; describe(): string };
  },
): Rejection | undefined {
  const { host, nonce, hosts } = socket;
  if (host === undefined || !hosts.accepts(host)) {
    return unauthenticated(
      `the Host header is "${host ?? ""}", this coordinator is ${hosts.describe()}: dial that, or start the coordinator with --public-host`,
    );
  }
  let key: KeyObject;
  try {
    key = publicKeyFrom(hello.node.publicKey);
  } catch (error) {
    return unauthenticated(`node.publicKey can't be used: ${error instanceof Error ? error.message : "not a key"}`);
  }
  const id = nodeIdOf(rawPublicKey(key));
  if (hello.node.id !== id) return unauthenticated(`node.id is ${hello.node.id}, but this key's is ${id}`);
  if (!verifySignature(key, helloBytes(host, nonce, id), hello.signature)) {
    return unauthenticated(
      `the signature is not this key's over "gpunode.v1", the Host header "${host}", the nonce of this challenge and the node id`,
    );
  }
  return hello.rotation === undefined ? undefined : refuteRotation(hello.rotation, { key, id, host, nonce });
}

/** Both keys have to speak: the old one hands over, and the new one is really there. */
function refuteRotation(
  { publicKey, proof, signature }: NonNullable<Hello["rotation"]>,
  old: { key: KeyObject; id: string; host: string; nonce: string },
): Rejection | undefined {
  let key: KeyObject;
  try {
    key = publicKeyFrom(publicKey);
  } catch (error) {
    return unauthenticated(`rotation.publicKey can't be used: ${error instanceof Error ? error.message : "not a key"}`);
  }
  const bytes = rotationBytes(old.host, old.nonce, old.id, publicKey);
  if (!verifySignature(old.key, bytes, proof)) return unauthenticated("rotation.proof is not the old key's");
  if (!verifySignature(key, bytes, signature)) return unauthenticated("rotation.signature is not the new key's");
  if (nodeIdOf(rawPublicKey(key)) === old.id) return unauthenticated("rotation.publicKey is the key the node has");
  return undefined;
}

/** What the database found against a `hello` that proves what it says. */
export type Hindrance =
  | { kind: "unknown" }
  | { kind: "replaced"; by: string }
  | { kind: "taken"; id: string }
  | { kind: "barred"; reason?: string };

/** Too many tokens that admit nobody came from there. */
export function guessesTooOften(retryAfterSeconds: number): Rejection {
  const message = `too many join tokens that are not valid came from this address: wait ${retryAfterSeconds} s`;
  return { closeCode: CLOSE.refused, code: "refused", message, retryAfterSeconds };
}

/** A hello that holds, and is not let in all the same. */
export function notAdmitted(hello: Hello, why: Hindrance): Rejection {
  const remedy = '"gpunode coordinator token create" makes a join token that admits it';
  return {
    closeCode: CLOSE.refused,
    code: "refused",
    message: inWords(hello, why),
    ...(why.kind === "unknown" && { remedy }),
  };
}

/** What a node is told whose key the operator keeps out. */
export function barredInWords(reason: string | undefined): string {
  return `the operator of this coordinator has barred this node${reason === undefined ? "" : `: ${reason}`}`;
}

function inWords(hello: Hello, why: Hindrance): string {
  switch (why.kind) {
    case "replaced":
      return `this key was given up for another one, and the node is ${why.by} now`;
    case "taken":
      return `the new key is ${why.id}'s, which is a node here already or was one`;
    case "barred":
      return barredInWords(why.reason);
    case "unknown":
      return hello.joinToken === undefined
        ? "this coordinator does not know the node's key: it needs a join token"
        : "the join token is not valid here, or has been used up";
  }
}

function unauthenticated(message: string): Rejection {
  return { closeCode: CLOSE.notAuthenticated, code: "not_authenticated", message };
}
