import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const CIPHER = "aes-256-gcm";
const IV_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;

/** Encrypts what must not lie on the disk in clear. `bound` ties the result to its row, so that it can't be moved to another. */
export interface Sealer {
  seal(plain: string, bound: string): Uint8Array;
  /** Throws where the key or `bound` is another, or the bytes were changed. */
  unseal(sealed: Uint8Array, bound: string): string;
}

/** AES-256-GCM; layout: IV, tag, ciphertext. */
export function sealerFrom(key: Uint8Array): Sealer {
  return {
    seal(plain, bound) {
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv(CIPHER, key, iv).setAAD(Buffer.from(bound));
      const body = Buffer.concat([cipher.update(plain, "utf8"), cipher.final()]);
      return Buffer.concat([iv, cipher.getAuthTag(), body]);
    },
    unseal(sealed, bound) {
      const bytes = Buffer.from(sealed);
      const iv = bytes.subarray(0, IV_BYTES);
      const decipher = createDecipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(bound));
      decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
      return decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
    },
  };
}

/** Reads the key beside the database, or makes it (mode 0600) at the first start. Throws where the file is no such key. */
export function loadSealer(path: string): Sealer {
  try {
    writeFileSync(path, randomBytes(KEY_BYTES), { flag: "wx", mode: 0o600, flush: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const key = readFileSync(path);
  if (key.length !== KEY_BYTES) {
    throw new Error(
      `${path} has ${key.length} bytes, a key has ${KEY_BYTES}: put the right file back, or move it away`,
    );
  }
  return sealerFrom(key);
}
