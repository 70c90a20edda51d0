import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto";
import { PROTOCOL } from "./limits.ts";

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

/** Lower-case RFC 4648 base32 without padding. */
function base32(bytes: Uint8Array): string {
  let out = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += BASE32.charAt((buffer >> bits) & 31);
    }
    buffer &= (1 << bits) - 1;
  }
  if (bits > 0) out += BASE32.charAt((buffer << (5 - bits)) & 31);
  return out;
}

/** `nodeId` of a raw 32-byte Ed25519 public key. */
export function nodeIdOf(rawPublicKey: Uint8Array): string {
  return base32(createHash("sha256").update(rawPublicKey).digest()).slice(0, 26);
}

/**
 * The bytes an agent signs to prove its key to this coordinator, now: bound to the host it dialled and to the nonce, so
 * the answer is of no use to anyone else. `host` is the HTTP Host header of the WebSocket request.
 */
export function helloBytes(host: string, nonce: string, nodeId: string): Buffer {
  return Buffer.from(`${PROTOCOL}\n${host}\n${nonce}\n${nodeId}`, "utf8");
}

/**
 * The bytes both keys sign when a node moves from one to the other: bound, like `helloBytes`, to this coordinator and this
 * challenge, and of another first line, so that neither signature can stand for the other. `newPublicKey` is base64url as sent.
 */
export function rotationBytes(host: string, nonce: string, nodeId: string, newPublicKey: string): Buffer {
  return Buffer.from(`${PROTOCOL} rotate\n${host}\n${nonce}\n${nodeId}\n${newPublicKey}`, "utf8");
}

/** The raw 32 bytes of an Ed25519 public key object. */
export function rawPublicKey(key: KeyObject): Buffer {
  const { x } = key.export({ format: "jwk" });
  if (x === undefined) throw new TypeError("not an Ed25519 public key");
  return Buffer.from(x, "base64url");
}

/** A public key from its raw bytes in base64url. Throws TypeError where they are not 32 bytes. */
export function publicKeyFrom(base64url: string): KeyObject {
  const raw = Buffer.from(base64url, "base64url");
  if (raw.length !== 32) throw new TypeError(`an Ed25519 public key has 32 bytes, this one ${raw.length}`);
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
}

/** True where `signature` (base64url) is this key's over `bytes`. Never throws on a malformed signature. */
export function verifySignature(key: KeyObject, bytes: Uint8Array, signature: string): boolean {
  const raw = Buffer.from(signature, "base64url");
  return raw.length === 64 && verify(null, bytes, key, raw);
}
