import { generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it, onTestFinished } from "vitest";
import { instantOf } from "../../src/cli/usage.ts";
import type { LocalActions } from "../../src/local/server.ts";
import { startLocalApi } from "../../src/local/server.ts";
import { socketPathIn } from "../../src/local/socket-path.ts";
import type { UsageEvent } from "../../src/protocol/event.ts";
import { nodeIdOf, rawPublicKey } from "../../src/protocol/identity.ts";
import { signUsage } from "../../src/protocol/usage.ts";
import { noActions } from "../local/no-actions.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";
import { gpunode, scratch } from "./gpunode.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const raw = rawPublicKey(publicKey);
const node = { id: nodeIdOf(raw), publicKey: raw.toString("base64url"), replaces: [] };

function record(minute: number, changes: Partial<UsageEvent> = {}): UsageEvent {
  const at = (n: number) => new Date(Date.parse("2026-01-15T12:00:00.000Z") + n * 60_000).toISOString();
  const { signature: _, ...unsigned } = {
    kind: "usage" as const,
    workload: "train",
    generation: 1,
    from: at(minute),
    to: at(minute + 1),
    gpus: ["GPU-0", "GPU-1"],
    gpuSeconds: 120,
    gpuUtilizationMeanPercent: 80,
    vramPeakMiB: 20_480,
    energyJoules: 36_000,
    cpuSeconds: 30,
    observedSeconds: 60,
    final: false,
    signature: "",
    ...changes,
  };
  return signUsage(unsigned, (bytes) => sign(null, bytes, privateKey));
}

async function daemonWith(records: readonly unknown[]) {
  const runDir = scratch();
  let asked = Number.NaN;
  const usage: LocalActions["usage"] = (sinceMs) => {
    asked = sinceMs;
    return { node, records };
  };
  const api = await startLocalApi({
    socketPath: socketPathIn(runDir),
    snapshot: exampleSnapshot,
    actions: { ...noActions, usage },
    log: { debug() {}, info() {}, error() {} },
  });
  onTestFinished(() => Promise.resolve(api[Symbol.asyncDispose]()));
  return { env: { GPUNODE_RUN_DIR: runDir, TZ: "UTC" }, since: () => asked };
}

describe("gpunode usage", () => {
  it("adds up by day and workload, and says that all of it verifies", async () => {
    const inference = record(0, { workload: "infer", gpus: ["GPU-2"], gpuSeconds: 60, energyJoules: 3600 });
    const { env } = await daemonWith([
      record(0),
      inference,
      record(1, { gpuUtilizationMeanPercent: 40 }),
      record(2, { final: true }),
    ]);
    const { code, out, err } = await gpunode(["usage"], env);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^2026-01-15 {2}infer +0\.017 +1\.0 Wh +80 % +20\.0 GiB +1 +yes$/m);
    expect(out).toMatch(/^2026-01-15 {2}train +0\.100 +30 Wh +67 % +20\.0 GiB +3 +yes$/m);
    expect(out).toContain("0.117 GPU-hours and 31 Wh in 4 records, every one signed by this node and none missing.");
  });

  it("--json is the same in numbers", async () => {
    const { env, since } = await daemonWith([record(0), record(1)]);
    const { out } = await gpunode(["usage", "--json", "--since", "2026-01-10"], env);
    expect(since()).toBe(Date.parse("2026-01-10T00:00:00.000Z"));
    expect(JSON.parse(out)).toEqual({
      node,
      since: "2026-01-10T00:00:00.000Z",
      days: [
        expect.objectContaining({
          day: "2026-01-15",
          workload: "train",
          gpuSeconds: 240,
          energyJoules: 72_000,
          records: 2,
          verified: true,
        }),
      ],
      total: { gpuSeconds: 240, energyJoules: 72_000, records: 2 },
      problems: [],
    });
  });

  it.each([
    ["changed", [record(0), { ...record(1), gpuSeconds: 12 }], /12:01:00\.000Z to .*its signature is not this node's/],
    ["missing", [record(0), record(2)], /nothing is told of 2026-01-15T12:01:00\.000Z to 2026-01-15T12:02:00\.000Z/],
    ["told twice", [record(0), record(0)], /is told twice/],
    ["no record at all", [record(0), { kind: "usage" }], /record 2 of the ledger cannot be read/],
  ])("names a record that is %s, and ends with exit code 1", async (_, records, says) => {
    const { env } = await daemonWith(records);
    const { code, out } = await gpunode(["usage"], env);
    expect(code).toBe(1);
    expect(out).toMatch(/Not verified/);
    expect(out).toMatch(says);
  });

  it("says that nothing was used, and what --since may be", async () => {
    const { env } = await daemonWith([]);
    expect((await gpunode(["usage", "--since", "7d"], env)).out).toBe("Nothing was used since 7d.\n");
    const { code, err } = await gpunode(["usage", "--since", "yesterday"], env);
    expect(code).toBe(2);
    expect(err).toBe("gpunode: --since yesterday: expected 12h, 7d, 4w or a date such as 2026-11-01\n");
  });
});

it("reads lengths and dates", () => {
  const now = Date.parse("2026-01-15T12:00:00.000Z");
  expect(instantOf("12h", now)).toBe(Date.parse("2026-01-15T00:00:00.000Z"));
  expect(instantOf("2w", now)).toBe(Date.parse("2026-01-01T12:00:00.000Z"));
  expect(instantOf("2026-01-15T01:02:03Z", now)).toBe(Date.parse("2026-01-15T01:02:03.000Z"));
});
