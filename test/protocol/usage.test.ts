import { generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { UsageEvent } from "../../src/protocol/event.ts";
import { chainProblem, signUsage, type UnsignedUsage, usageBytes, verifyUsage } from "../../src/protocol/usage.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const signer = (bytes: Uint8Array) => sign(null, bytes, privateKey);

const record: UnsignedUsage = {
  kind: "usage",
  workload: "train",
  generation: 1,
  from: "2026-01-01T00:00:00.000Z",
  to: "2026-01-01T00:01:00.000Z",
  gpus: ["GPU-0", "GPU-1"],
  gpuSeconds: 120,
  gpuUtilizationMeanPercent: 87.5,
  energyJoules: 36_000.25,
  final: false,
};

describe("a usage record", () => {
  it("is signed over RFC 8785 canonical JSON without its signature", () => {
    const text =
      '{"energyJoules":36000.25,"final":false,"from":"2026-01-01T00:00:00.000Z","generation":1,' +
      '"gpuSeconds":120,"gpuUtilizationMeanPercent":87.5,"gpus":["GPU-0","GPU-1"],"kind":"usage",' +
      '"to":"2026-01-01T00:01:00.000Z","workload":"train"}';
    expect(usageBytes(record).toString()).toBe(text);
    expect(usageBytes({ ...record, signature: "x" }).toString()).toBe(text);
  });

  it("verifies as signed, also after a way through JSON with other things added to it", () => {
    const signed = signUsage(record, signer);
    expect(UsageEvent.parse(signed)).toEqual(signed);
    const travelled = JSON.parse(JSON.stringify({ seq: 7, at: record.to, node: "n", ...signed })) as UsageEvent;
    expect(verifyUsage(travelled, publicKey)).toBe(true);
  });

  it.each([
    { gpuSeconds: 121 },
    { to: "2026-01-01T00:02:00.000Z" },
    { workload: "other" },
    { gpus: ["GPU-0"] },
    { final: true },
    { energyJoules: 1 },
    { vramPeakMiB: 1 },
    { signature: "" },
    { signature: "AAAA" },
  ])("does not verify with %j", (change) => {
    expect(verifyUsage({ ...signUsage(record, signer), ...change }, publicKey)).toBe(false);
  });

  it("does not verify under another key", () => {
    const { publicKey: other } = generateKeyPairSync("ed25519");
    expect(verifyUsage(signUsage(record, signer), other)).toBe(false);
  });
});

describe("records that follow each other", () => {
  const signed = signUsage(record, signer);
  it("fit where one begins as the other ends", () => {
    expect(chainProblem(signed, undefined)).toBeUndefined();
    expect(chainProblem(signed, { to: record.from, final: false })).toBeUndefined();
  });

  it.each([
    [{ to: "2025-12-31T23:59:59.000Z", final: false }, {}, /nothing is told of 2025-12-31T23:59:59/],
    [{ to: "2026-01-01T00:00:01.000Z", final: false }, {}, /told twice/],
    [{ to: record.from, final: true }, {}, /follows the final/],
    [undefined, { from: "2026-01-02T00:00:00.000Z" }, /ends before it begins/],
    [undefined, { gpuSeconds: 60 }, /60 GPU-seconds in 60 s on 2 GPUs/],
  ])("do not fit after %j with %j", (before, change, says) => {
    expect(chainProblem({ ...signed, ...change }, before)).toMatch(says);
  });
});
