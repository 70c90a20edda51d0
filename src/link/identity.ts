import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { GpunodeError } from "../protocol/errors.ts";
import { nodeIdOf, publicKeyFrom, rawPublicKey } from "../protocol/identity.ts";
import { readKeyFile, removeKeyFile, writeKeyFile } from "./key-file.ts";

/** An Ed25519 key and the name that follows from it. */
export interface NodeKey {
  readonly nodeId: string;
  /** Raw 32 bytes, base64url. */
  readonly publicKey: string;
  /** Ed25519 signature, 64 bytes. */
  sign(bytes: Uint8Array): Buffer;
}

/** A key this node had before: what it signed verifies with it. */
export interface RetiredKey {
  readonly nodeId: string;
  readonly publicKey: string;
  /** RFC 3339. */
  readonly retiredAt: string;
}

/**
 * Who this node is: a key that never leaves the machine, and may be changed for a new one. Id, public key and signatures
 * are always those of the key it has now.
 *
 *     one key ── prepareNext ──▶ two keys ── adoptNext ──▶ one key, the new one
 *                                    └────── dropNext ───▶ one key, the old one
 */
export interface Identity extends NodeKey {
  /** The id of this node's first key. It stays, so it marks what outlives a key, as containers do. */
  readonly firstNodeId: string;
  /** Oldest first. */
  readonly retired: readonly RetiredKey[];
  /** The key that is to take over, on the disk already. */
  readonly next: NodeKey | undefined;
  /** Makes the key that is to take over, or gives the one that waits: somebody may know it already. */
  prepareNext(): NodeKey;
  /** It takes over; of the old one only the public part is kept. No error where there is none. */
  adoptNext(): void;
  /** It goes unused. */
  dropNext(): void;
}

interface KeyOnDisk extends NodeKey {
  pem: string;
  retired: readonly RetiredKey[];
}

/**
 * Reads the node's key (PKCS 8, PEM), or makes it on the first start with mode 0600. Throws `policy_denied` where
 * others than the owner may read it, `invalid_spec` where the file holds no Ed25519 key.
 *
 * Keys it had before stand above the PEM block, a line each: `Retired: PUBLIC_KEY TIME`. PEM (RFC 7468, section 2) leaves what is
 * there to those who wrote it. So who the node is lies in one file, and changes in one step.
 */
export function loadIdentity(path: string, { now = Date.now }: { now?: () => number } = {}): Identity {
  const nextPath = `${path}.next`;
  let key = read(path) ?? make(path, { replace: false });
  let next = read(nextPath);
  // It took over, and the machine went down before this copy was removed.
  if (next?.nodeId === key.nodeId) {
    removeKeyFile(nextPath);
    next = undefined;
  }
  return {
    get nodeId() {
      return key.nodeId;
    },
    get publicKey() {
      return key.publicKey;
    },
    get firstNodeId() {
      return key.retired[0]?.nodeId ?? key.nodeId;
    },
    get retired() {
      return key.retired;
    },
    get next() {
      return next;
    },
    sign: (bytes) => key.sign(bytes),
    prepareNext() {
      next ??= make(nextPath, { replace: true });
      return next;
    },
    adoptNext() {
      if (next === undefined) return;
      const { nodeId, publicKey } = key;
      const retired = [...key.retired, { nodeId, publicKey, retiredAt: new Date(now()).toISOString() }];
      writeKeyFile(path, textOf(next.pem, retired), { replace: true });
      key = { ...next, retired };
      next = undefined;
      removeKeyFile(nextPath);
    },
    dropNext() {
      next = undefined;
      removeKeyFile(nextPath);
    },
  };
}

function make(path: string, { replace }: { replace: boolean }): KeyOnDisk {
  const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  writeKeyFile(path, pem, { replace });
  return keyOf(path, pem);
}

function read(path: string): KeyOnDisk | undefined {
  const text = readKeyFile(path);
  return text === undefined ? undefined : keyOf(path, text);
}

function keyOf(path: string, text: string): KeyOnDisk {
  const begin = Math.max(0, text.indexOf("-----BEGIN"));
  const pem = text.slice(begin);
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
    pem,
    retired: retiredIn(path, text.slice(0, begin)),
  };
}

const RETIRED = /^Retired: (?<publicKey>[\w-]{43}) (?<retiredAt>\S+)$/;

function retiredIn(path: string, head: string): RetiredKey[] {
  const lines = head.split("\n").filter((line) => line.startsWith("Retired:"));
  return lines.map((line) => {
    const { publicKey, retiredAt } = RETIRED.exec(line)?.groups ?? {};
    if (publicKey === undefined || retiredAt === undefined) {
      throw unusable(path, `has the line "${line.slice(0, 100)}", which is not "Retired: PUBLIC_KEY TIME"`);
    }
    return { nodeId: nodeIdOf(rawPublicKey(publicKeyFrom(publicKey))), publicKey, retiredAt };
  });
}

function textOf(pem: string, retired: readonly RetiredKey[]): string {
  return retired.map(({ publicKey, retiredAt }) => `Retired: ${publicKey} ${retiredAt}\n`).join("") + pem;
}

function unusable(path: string, what: string): GpunodeError {
  return new GpunodeError(
    "invalid_spec",
    `${path} ${what}; an Ed25519 key is needed: restore the file, or remove it to make a new key (the node is then a new one to its coordinator)`,
    { details: { path } },
  );
}
