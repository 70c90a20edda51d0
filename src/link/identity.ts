import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto";
import {
  closeSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { GpunodeError } from "../protocol/errors.ts";
import { nodeIdOf, rawPublicKey } from "../protocol/identity.ts";

/** Who this node is: an Ed25519 key that never leaves the machine. */
export interface Identity {
  readonly nodeId: string;
  /** Raw 32 bytes, base64url. */
  readonly publicKey: string;
  /** Ed25519 signature, 64 bytes. */
  sign(bytes: Uint8Array): Buffer;
}

/**
 * Reads the node's key (PKCS 8, PEM), or makes it on the first start with mode 0600. Throws `policy_denied` where
 * others than the owner may read it, `invalid_spec` where the file holds no Ed25519 key.
 */
export function loadIdentity(path: string): Identity {
  const pem = readKey(path) ?? makeKey(path);
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw unusable(path, "holds no private key in PEM");
  }
  if (key.asymmetricKeyType !== "ed25519") throw unusable(path, `holds a key of type ${key.asymmetricKeyType}`);
  const raw = rawPublicKey(createPublicKey(key));
  return {
    nodeId: nodeIdOf(raw),
    publicKey: raw.toString("base64url"),
    sign: (bytes) => sign(null, bytes, key),
  };
}

function readKey(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const mode = fstatSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new GpunodeError(
        "policy_denied",
        `${path} has mode ${mode.toString(8).padStart(4, "0")}, so others may read this node's key: "chmod 600 ${path}" if nobody has, else remove it to make a new key (the node is then a new one to its coordinator)`,
        { details: { path, mode } },
      );
    }
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

/** Whole on the disk under its name, or not there at all: a power cut must not leave half a key. */
function makeKey(path: string): string {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const draft = `${path}.${randomUUID()}.tmp`;
  const file = openSync(draft, "wx", 0o600);
  try {
    writeSync(file, pem);
    fsyncSync(file);
    // A link, not a rename: the key of another process that was quicker must stay.
    linkSync(draft, path);
  } finally {
    closeSync(file);
    unlinkSync(draft);
  }
  const folder = openSync(dirname(path), "r");
  fsyncSync(folder);
  closeSync(folder);
  return pem;
}

function unusable(path: string, what: string): GpunodeError {
  return new GpunodeError(
    "invalid_spec",
    `${path} ${what}; an Ed25519 key is needed: restore the file, or remove it to make a new key (the node is then a new one to its coordinator)`,
    { details: { path } },
  );
}
