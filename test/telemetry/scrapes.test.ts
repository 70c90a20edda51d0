import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Scrapes } from "../../src/telemetry/scrapes.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A node whose samples come from a stream while there is one, and else from the reads somebody asks for. */
function node({ intervalMs = 1_000, sampledMsAgo = Number.POSITIVE_INFINITY } = {}) {
  const now = () => Date.now();
  let newestAt = now() - sampledMsAgo;
  const streams: number[] = [];
  let stream: number | undefined;
  let reads = 0;
  const scrapes = new Scrapes({
    intervalMs,
    listen(interval) {
      streams.push(interval);
      stream = interval;
      return {
        [Symbol.dispose]: () => {
          stream = undefined;
        },
      };
    },
    newestAgeMs: () => (newestAt === Number.NEGATIVE_INFINITY ? undefined : now() - newestAt),
    async read() {
      reads += 1;
      newestAt = now();
    },
    now,
  });
  return {
    scrapes,
    /** Time passes, with samples as the stream takes them. */
    async pass(ms: number) {
      for (let left = ms; left > 0; left -= 1_000) {
        await vi.advanceTimersByTimeAsync(Math.min(1_000, left));
        if (stream !== undefined) newestAt = now();
      }
    },
    get isStreaming() {
      return stream !== undefined;
    },
    streams,
    get reads() {
      return reads;
    },
  };
}

test.each([5, 15, 30])(
  "a scrape every %i s has one stream, which stays, and no read after the second scrape",
  async (every) => {
    const machine = node();
    for (let scrape = 0; scrape < 40; scrape += 1) {
      await machine.scrapes.scraped();
      await machine.pass(every * 1_000);
    }
    expect(machine.streams).toEqual([2_000]);
    expect(machine.isStreaming).toBe(true);
    expect(machine.reads).toBeLessThanOrEqual(2);
  },
);

test("a scrape every minute has no stream, and a read of its own each time", async () => {
  const machine = node();
  for (let scrape = 0; scrape < 10; scrape += 1) {
    await machine.scrapes.scraped();
    await machine.pass(60_000);
  }
  expect({ streams: machine.streams, reads: machine.reads }).toEqual({ streams: [], reads: 10 });
});

test("who looks once starts no stream; where figures are fresh anyway, not even a read", async () => {
  const idle = node();
  await idle.scrapes.scraped();
  expect({ streams: idle.streams, reads: idle.reads }).toEqual({ streams: [], reads: 1 });
  const busy = node({ sampledMsAgo: 900 });
  await busy.scrapes.scraped();
  expect(busy.reads).toBe(0);
});

test("the stream ends 90 s after the last scrape, and comes again with the scraper", async () => {
  const machine = node();
  await machine.scrapes.scraped();
  await machine.pass(15_000);
  await machine.scrapes.scraped();
  await machine.pass(89_000);
  expect(machine.isStreaming).toBe(true);
  await machine.pass(2_000);
  expect(machine.isStreaming).toBe(false);
  await machine.scrapes.scraped();
  expect(machine.isStreaming).toBe(false);
  await machine.pass(15_000);
  await machine.scrapes.scraped();
  expect(machine.streams).toHaveLength(2);
});

test("two scrapers a minute apart each, who take turns every 20 and 40 s, leave no hole in it", async () => {
  const machine = node();
  for (let turn = 0; turn < 20; turn += 1) {
    await machine.scrapes.scraped();
    await machine.pass(20_000);
    await machine.scrapes.scraped();
    await machine.pass(40_000);
  }
  expect(machine.streams).toHaveLength(1);
});

test("it is no faster than the provider wants samples to be", async () => {
  const machine = node({ intervalMs: 5_000 });
  await machine.scrapes.scraped();
  await machine.scrapes.scraped();
  expect(machine.streams).toEqual([5_000]);
});

test("several who scrape at once share one read", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let reads = 0;
  const scrapes = new Scrapes({
    intervalMs: 1_000,
    listen: () => ({ [Symbol.dispose]: () => undefined }),
    newestAgeMs: () => undefined,
    read() {
      reads += 1;
      return promise;
    },
    now: Date.now,
  });
  const all = Promise.all([scrapes.scraped(), scrapes.scraped(), scrapes.scraped()]);
  resolve();
  await all;
  expect(reads).toBe(1);
  scrapes[Symbol.dispose]();
});

test("when the agent leaves, the stream ends, and no timer is left", async () => {
  const machine = node();
  await machine.scrapes.scraped();
  await machine.scrapes.scraped();
  machine.scrapes[Symbol.dispose]();
  expect(machine.isStreaming).toBe(false);
  expect(vi.getTimerCount()).toBe(0);
});
