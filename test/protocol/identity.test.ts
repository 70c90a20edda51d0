import { createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { helloBytes, nodeIdOf, publicKeyFrom, rawPublicKey, verifySignature } from "../../src/protocol/identity.ts";

describe("node identity", () => {
  it("has the id of the contract's check vector", () => {
    expect(nodeIdOf(Uint8Array.from({ length: 32 }, (_, index) => index))).toBe("mmg42klgyqzwneiskrelxms3j7");
  });

  it("goes from key to raw bytes and back", () => {
    const { publicKey } = generateKeyPairSync("ed25519");
    const raw = rawPublicKey(publicKey);
    const der = publicKey.export({ format: "der", type: "spki" });
    expect(raw.equals(der.subarray(-32))).toBe(true);
    expect(publicKeyFrom(raw.toString("base64url")).equals(publicKey)).toBe(true);
  });

  it.each(["", "AAAA", Buffer.alloc(31).toString("base64url"), Buffer.alloc(33).toString("base64url"), "§§§"])(
    "refuses a public key that has not 32 bytes: %j",
    (text) => expect(() => publicKeyFrom(text)).toThrow(/32 bytes/),
  );
});

describe("the signature of hello", () => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const bytes = helloBytes("coordinator.example:8443", "n".repeat(43), "mmg42klgyqzwneiskrelxms3j7");
  const signature = sign(null, bytes, privateKey).toString("base64url");

  it("is made over the contract's four lines, without an end of line", () => {
    expect(bytes.toString()).toBe(
      `gpunode.v1\ncoordinator.example:8443\n${"n".repeat(43)}\nmmg42klgyqzwneiskrelxms3j7`,
    );
  });

  it("holds for its key and bytes, and for no others", () => {
    expect(verifySignature(publicKey, bytes, signature)).toBe(true);
    expect(verifySignature(publicKey, helloBytes("other.example", "n".repeat(43), "x"), signature)).toBe(false);
    const other = createPublicKey(generateKeyPairSync("ed25519").privateKey);
    expect(verifySignature(other, bytes, signature)).toBe(false);
  });

  it.each(["", "AA", "not base64 §", `${signature}AAAA`])("does not hold when malformed: %j", (text) => {
    expect(verifySignature(publicKey, bytes, text)).toBe(false);
  });
});
