import { generateKeyPairSync, sign } from "node:crypto";
import { nodeIdOf, rawPublicKey } from "../src/protocol/identity.ts";

/** A node's key, of which the private half signs. */
export interface Key {
  id: string;
  publicKey: string;
  /** Ed25519, base64url. */
  sign(bytes: Uint8Array): string;
}

export function newKey(): Key {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = rawPublicKey(publicKey);
  return {
    id: nodeIdOf(raw),
    publicKey: raw.toString("base64url"),
    sign: (bytes) => sign(null, bytes, privateKey).toString("base64url"),
  };
}
