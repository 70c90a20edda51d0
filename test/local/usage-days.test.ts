import { generateKeyPairSync, sign } from "node:crypto";
import { expect, it } from "vitest";
import { usageDays } from "../../src/local/usage-days.ts";
import type { UsageEvent } from "../../src/protocol/event.ts";
import { signUsage } from "../../src/protocol/usage.ts";

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const NOON = new Date(2026, 2, 10, 12).getTime();
const NOON_TEXT = new Date(NOON).toISOString();
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** An hour of one GPU that began so many hours before noon. */
function hour(hoursAgo: number, changes: Partial<UsageEvent> = {}): UsageEvent {
  const at = (ms: number) => new Date(ms).toISOString();
  const record = {
    ...{ kind: "usage" as const, workload: `w${hoursAgo}`, generation: 1, gpus: ["GPU-1"], final: true },
    ...{ from: at(NOON - hoursAgo * HOUR), to: at(NOON - (hoursAgo - 1) * HOUR), gpuSeconds: 3600, energyJoules: 1000 },
    ...changes,
  };
  return signUsage(record, (bytes) => sign(null, bytes, privateKey));
}

function ledger(...records: unknown[]) {
  const over = new AbortController();
  /** `read`: how many records were read of the ledger. */
  const book = { now: NOON, records, read: 0 };
  const tell = usageDays({
    *records(sinceMs, after) {
      for (const [at, record] of book.records.entries()) {
        if (at + 1 <= after || Date.parse((record as UsageEvent | undefined)?.to ?? NOON_TEXT) <= sinceMs) continue;
        book.read += 1;
        yield { position: at + 1, record };
      }
    },
    keys: () => [publicKey],
    now: () => book.now,
    signal: over.signal,
  });
  return Object.assign(book, { over, tell });
}

it("adds up the last seven days, today the last of them", async () => {
  const book = ledger(hour(13 * 24), hour(6 * 24), hour(26), hour(25), hour(2, { energyJoules: 7 }));
  const { days, unverified } = await book.tell();
  expect(unverified).toBe(0);
  expect(days).toEqual([
    { day: "2026-03-04", gpuSeconds: 3600, energyJoules: 1000, records: 1 },
    { day: "2026-03-05", gpuSeconds: 0, records: 0 },
    { day: "2026-03-06", gpuSeconds: 0, records: 0 },
    { day: "2026-03-07", gpuSeconds: 0, records: 0 },
    { day: "2026-03-08", gpuSeconds: 0, records: 0 },
    { day: "2026-03-09", gpuSeconds: 7200, energyJoules: 2000, records: 2 },
    { day: "2026-03-10", gpuSeconds: 3600, energyJoules: 7, records: 1 },
  ]);
});

it("reads each record once a day, however often and by how many it is asked", async () => {
  const book = ledger(...Array.from({ length: 250 }, (_, n) => hour(1, { workload: `w${n}` })));
  const [one, two] = await Promise.all([book.tell(), book.tell()]);
  expect([one.days.at(-1)?.records, two.days.at(-1)?.records, book.read]).toEqual([250, 250, 250]);
  book.records.push(hour(3));
  expect((await book.tell()).days.at(-1)?.records).toBe(251);
  expect(book.read).toBe(251);
  book.now += 3 * DAY;
  const later = await book.tell();
  expect(later.days.map(({ records }) => records)).toEqual([0, 0, 0, 251, 0, 0, 0]);
  await book.tell();
  expect(book.read).toBe(502);
  book.now += 4 * DAY;
  expect((await book.tell()).days.every(({ records }) => records === 0)).toBe(true);
});

it("counts what does not verify: changed, unreadable, or without the one before", async () => {
  const whole = hour(5);
  const chain = (from: number, to: number) => ({ workload: "c", from: hour(from).from, to: hour(to).to, final: false });
  const book = ledger(
    { ...whole, gpuSeconds: 1 },
    undefined,
    { to: whole.to },
    hour(0, chain(9, 9)),
    hour(0, chain(7, 7)),
  );
  const { days, unverified } = await book.tell();
  expect(unverified).toBe(4);
  expect(days.at(-1)).toMatchObject({ records: 3 });
  book.now += 8 * DAY;
  expect(await book.tell()).toMatchObject({ unverified: 0 });
});

it("stops in the middle when the daemon leaves", async () => {
  const book = ledger(...Array.from({ length: 1_000 }, (_, n) => hour(1, { workload: `w${n}` })));
  const telling = book.tell();
  book.over.abort();
  expect((await telling).days.at(-1)?.records).toBeLessThan(1_000);
});
