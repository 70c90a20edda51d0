import { generateKeyPairSync, sign } from "node:crypto";
import { expect, it } from "vitest";
import { createEarningsReader } from "../../../src/cli/watch/earnings.ts";
import type { UsageEvent } from "../../../src/protocol/event.ts";
import { nodeIdOf, rawPublicKey } from "../../../src/protocol/identity.ts";
import { signUsage } from "../../../src/protocol/usage.ts";

process.env.TZ = "UTC";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const raw = rawPublicKey(publicKey);
const node = { id: nodeIdOf(raw), publicKey: raw.toString("base64url"), replaces: [] };
const noon = Date.parse("2026-01-15T12:00:00.000Z");

/** A minute on two GPUs, at 600 W. */
function record(from: number, changes: Partial<UsageEvent> = {}): UsageEvent {
  const unsigned = {
    ...{ kind: "usage" as const, workload: "train", generation: 1, gpus: ["GPU-0", "GPU-1"], gpuSeconds: 120 },
    ...{ from: new Date(from).toISOString(), to: new Date(from + 60_000).toISOString() },
    ...{ energyJoules: 36_000, final: false, ...changes },
  };
  return signUsage(unsigned, (bytes) => sign(null, bytes, privateKey));
}

/** A ledger that grows, and what was asked of it. */
function ledger(...records: unknown[]) {
  const asked: number[] = [];
  const usage = async (sinceMs: number) => {
    asked.push(sinceMs);
    const found = records.filter((one) => Date.parse((one as UsageEvent).to) > sinceMs);
    return {
      node,
      records: (async function* () {
        yield* found;
      })(),
    };
  };
  return { records, asked, daemon: { usage } };
}

it("seven days, today the last, each record verified", async () => {
  const { daemon, asked } = ledger(
    record(noon - 86_400_000, { workload: "old", final: true }),
    record(noon - 120_000),
    record(noon - 60_000),
  );
  const { days, isVerified } = await createEarningsReader(daemon, { now: () => noon })();
  expect(asked).toEqual([Date.parse("2026-01-09T00:00:00.000Z")]);
  expect(isVerified).toBe(true);
  expect(days.map(({ day }) => day)).toEqual(
    [9, 10, 11, 12, 13, 14, 15].map((day) => `2026-01-${String(day).padStart(2, "0")}`),
  );
  expect(days.slice(-2)).toEqual([
    { day: "2026-01-14", gpuSeconds: 120, energyJoules: 36_000 },
    { day: "2026-01-15", gpuSeconds: 240, energyJoules: 72_000 },
  ]);
  expect(days[0]).toEqual({ day: "2026-01-09", gpuSeconds: 0 });
});

it("reads on from where it was: nothing counts twice, and what was written late is not missed", async () => {
  let now = noon;
  const { daemon, records, asked } = ledger(record(noon - 60_000));
  const read = createEarningsReader(daemon, { now: () => now });
  const today = async () => (await read()).days.at(-1)?.gpuSeconds;
  expect(await today()).toBe(120);
  now += 60_000;
  records.push(record(noon));
  // It ended while no daemon ran, half an hour ago.
  records.push(record(noon - 1_800_000, { workload: "late", final: true }));
  expect(await today()).toBe(360);
  expect(await today()).toBe(360);
  expect(asked.slice(1)).toEqual([noon - 3_600_000, noon + 60_000 - 3_600_000]);
  // A new day begins with the whole week.
  now = noon + 86_400_000;
  expect(await today()).toBe(0);
  expect(asked.at(-1)).toBe(Date.parse("2026-01-10T00:00:00.000Z"));
  expect((await read()).days.at(-2)?.gpuSeconds).toBe(360);
});

it("says that not all of it verifies: changed, missing", async () => {
  const good = record(noon - 60_000);
  const changed = createEarningsReader(ledger({ ...good, gpuSeconds: 999 }).daemon, { now: () => noon });
  expect((await changed()).isVerified).toBe(false);
  const missing = createEarningsReader(ledger(record(noon - 180_000), good).daemon, { now: () => noon });
  expect((await missing()).isVerified).toBe(false);
});

it("a reading that fails changes nothing", async () => {
  const { daemon } = ledger(record(noon - 60_000));
  let fails = true;
  const flaky = async (sinceMs: number) => {
    if (fails) throw new Error("away");
    return await daemon.usage(sinceMs);
  };
  const read = createEarningsReader({ usage: flaky }, { now: () => noon });
  await expect(read()).rejects.toThrow("away");
  fails = false;
  expect((await read()).days.at(-1)?.gpuSeconds).toBe(120);
});
