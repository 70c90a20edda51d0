import { createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadIdentity } from "../../src/link/identity.ts";
import { nodeIdOf } from "../../src/protocol/identity.ts";
import { scratch } from "./harness.ts";

describe("identity", () => {
  it("is made on the first start, for its owner alone, and stays the same", () => {
    const path = join(scratch(), "made/identity.pem");
    const first = loadIdentity(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(join(path, ".."))).toEqual(["identity.pem"]);
    expect(first.nodeId).toMatch(/^[a-z2-7]{26}$/);
    const second = loadIdentity(path);
    expect([second.nodeId, second.publicKey]).toEqual([first.nodeId, first.publicKey]);
    expect(loadIdentity(join(scratch(), "identity.pem")).nodeId).not.toBe(first.nodeId);
  });

  it("signs with the key in the file", () => {
    const path = join(scratch(), "identity.pem");
    const identity = loadIdentity(path);
    const key = createPublicKey(readFileSync(path, "utf8"));
    const bytes = Buffer.from("what is signed");
    expect(verify(null, bytes, key, identity.sign(bytes))).toBe(true);
    const raw = key.export({ format: "der", type: "spki" }).subarray(-32);
    expect(identity.publicKey).toBe(raw.toString("base64url"));
    expect(identity.nodeId).toBe(nodeIdOf(raw));
  });

  it.each([0o644, 0o640, 0o604, 0o660])("is refused where others may read it: mode %o", (mode) => {
    const path = join(scratch(), "identity.pem");
    loadIdentity(path);
    chmodSync(path, mode);
    expect(() => loadIdentity(path)).toThrow(new RegExp(`mode 0${mode.toString(8)}.*chmod 600`));
  });

  it.each([
    ["nothing", ""],
    ["rubbish", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
    [
      "a key of another kind",
      generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    ],
  ])("is not replaced where the file holds %s", (_what, text) => {
    const path = join(scratch(), "identity.pem");
    writeFileSync(path, text, { mode: 0o600 });
    expect(() => loadIdentity(path)).toThrow(/Ed25519 key is needed/);
    expect(readFileSync(path, "utf8")).toBe(text);
  });
});
