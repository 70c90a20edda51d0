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

describe("a new key", () => {
  it("waits beside the old one until it takes over; then the private part of the old one is nowhere", () => {
    const path = join(scratch(), "identity.pem");
    const identity = loadIdentity(path, { now: () => Date.parse("2026-01-31T12:00:00.000Z") });
    const [first, oldPem] = [identity.nodeId, readFileSync(path, "utf8")];
    const old = createPublicKey(oldPem);
    const next = identity.prepareNext();
    expect(statSync(`${path}.next`).mode & 0o777).toBe(0o600);
    expect(identity.nodeId).toBe(first);
    expect(verify(null, Buffer.from("x"), old, identity.sign(Buffer.from("x")))).toBe(true);
    // Asked again, also by the next process, it is the same one.
    expect(identity.prepareNext().nodeId).toBe(next.nodeId);
    expect(loadIdentity(path).next?.nodeId).toBe(next.nodeId);

    const publicKey = identity.publicKey;
    identity.adoptNext();
    expect(readdirSync(join(path, ".."))).toEqual(["identity.pem"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const text = readFileSync(path, "utf8");
    expect(text.split("\n")[0]).toBe(`Retired: ${publicKey} 2026-01-31T12:00:00.000Z`);
    expect(text).not.toContain(oldPem.split("\n")[1]);
    for (const now of [identity, loadIdentity(path)]) {
      expect([now.nodeId, now.firstNodeId, now.next]).toEqual([next.nodeId, first, undefined]);
      expect(now.retired).toEqual([{ nodeId: first, publicKey, retiredAt: "2026-01-31T12:00:00.000Z" }]);
      expect(verify(null, Buffer.from("x"), createPublicKey(text), now.sign(Buffer.from("x")))).toBe(true);
    }
  });

  it("may be followed by another: all that went before are remembered, and the first gives its name", () => {
    const path = join(scratch(), "identity.pem");
    const identity = loadIdentity(path);
    const ids = [identity.nodeId];
    for (let times = 0; times < 3; times += 1) {
      identity.prepareNext();
      identity.adoptNext();
      ids.push(identity.nodeId);
    }
    const again = loadIdentity(path);
    expect(again.retired.map(({ nodeId }) => nodeId)).toEqual(ids.slice(0, 3));
    expect([again.firstNodeId, again.nodeId]).toEqual([ids[0], ids[3]]);
  });

  it("may go unused", () => {
    const path = join(scratch(), "identity.pem");
    const identity = loadIdentity(path);
    identity.prepareNext();
    identity.dropNext();
    identity.dropNext();
    expect([identity.next, loadIdentity(path).next]).toEqual([undefined, undefined]);
    expect(readdirSync(join(path, ".."))).toEqual(["identity.pem"]);
  });

  it("that took over before its copy was removed is not a new one", () => {
    const path = join(scratch(), "identity.pem");
    const identity = loadIdentity(path);
    const { nodeId } = identity.prepareNext();
    const copy = readFileSync(`${path}.next`);
    identity.adoptNext();
    writeFileSync(`${path}.next`, copy, { mode: 0o600 });
    expect([loadIdentity(path).nodeId, loadIdentity(path).next]).toEqual([nodeId, undefined]);
    expect(readdirSync(join(path, ".."))).toEqual(["identity.pem"]);
  });

  it("others may read is refused, as is a line about an old one that cannot be read", () => {
    const path = join(scratch(), "identity.pem");
    loadIdentity(path).prepareNext();
    chmodSync(`${path}.next`, 0o644);
    expect(() => loadIdentity(path)).toThrow(/identity\.pem\.next has mode 0644/);
    const other = join(scratch(), "identity.pem");
    loadIdentity(other);
    writeFileSync(other, `Retired: nonsense\n${readFileSync(other, "utf8")}`);
    expect(() => loadIdentity(other)).toThrow(/has the line "Retired: nonsense"/);
  });
});
