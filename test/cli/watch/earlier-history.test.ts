import { PassThrough } from "node:stream";
import type { ReadStream, WriteStream } from "node:tty";
import { expect, it, onTestFinished } from "vitest";
import { readEarlier } from "../../../src/cli/watch/earlier.ts";
import type { EarlierHistory, HistoryPoint } from "../../../src/cli/watch/history.ts";
import { createHistory } from "../../../src/cli/watch/history.ts";
import { watch } from "../../../src/cli/watch/watch.ts";
import { connectLocal } from "../../../src/local/client.ts";
import { startLocalApi } from "../../../src/local/server.ts";
import type { Snapshot } from "../../../src/local/snapshot.ts";
import { socketPathIn } from "../../../src/local/socket-path.ts";
import { noActions } from "../../local/no-actions.ts";
import { exampleSnapshot } from "../../local/snapshot-example.ts";
import { scratch } from "../gpunode.ts";

/** A terminal that is looked at from inside: 80 × 24, with a keyboard. */
function terminal() {
  const stdout = Object.assign(new PassThrough({ encoding: "utf8" }), { columns: 80, rows: 24 });
  let bytes = "";
  stdout.on("data", (chunk: string) => {
    bytes += chunk;
  });
  const stdin: PassThrough & { setRawMode?: (isRaw: boolean) => unknown } = new PassThrough();
  stdin.setRawMode = () => stdin;
  return {
    streams: { stdout: stdout as unknown as WriteStream, stdin: stdin as unknown as ReadStream },
    type: (keys: string) => stdin.write(keys),
    get bytes() {
      return bytes;
    },
  };
}

const present = (): Snapshot => ({ ...exampleSnapshot(), at: new Date().toISOString() });
const nothingLent = async () => ({
  node: { id: "n", publicKey: "", replaces: [] },
  records: (async function* () {})(),
});
const daemon = { status: async () => present(), usage: nothingLent };

async function seenWith(earlierHistory: () => Promise<EarlierHistory>): Promise<string> {
  const screen = terminal();
  const shown = watch({ daemon, first: present(), color: false, unicode: true, ...screen.streams, earlierHistory });
  const before = screen.bytes.length;
  // A picture later: what came before is in it.
  while (screen.bytes.length === before) await new Promise((resolve) => setTimeout(resolve, 20));
  screen.type("q");
  await shown;
  return screen.bytes;
}

it("what was before the watch began is in its graphs, once it is known", async () => {
  const [gpu] = present().gpus;
  const now = Date.now();
  const points = Array.from(
    { length: 60 },
    (_, index): HistoryPoint => ({ at: now - index * 1000, utilizationPercent: 100 }),
  );
  expect(await seenWith(async () => new Map([[gpu?.uuid ?? "", points]]))).toMatch(/█{11}/);
  expect(await seenWith(async () => new Map())).not.toMatch(/█{3}/);
});

it("a daemon that does not tell what was before is no reason not to begin", async () => {
  const seen = await seenWith(async () => {
    throw new Error("there is no GET /v1/history");
  });
  expect(seen).toContain("rig-01");
  expect(seen).not.toContain("history");
  // The terminal is given back.
  expect(seen.endsWith("\x1b[?7h\x1b[?25h\x1b[?1049l")).toBe(true);
});

it("the daemon's last day: the last hour by its small steps, what was before by the large ones", async () => {
  const snapshot = exampleSnapshot();
  const [gpu] = snapshot.gpus;
  const uuid = gpu?.uuid ?? "";
  const now = Date.parse(snapshot.at);
  const socketPath = socketPathIn(scratch());
  const api = await startLocalApi({
    ...{ socketPath, snapshot: () => snapshot, log: { debug() {}, info() {}, error() {} } },
    actions: {
      ...noActions,
      history(hours) {
        const stepMs = hours === 1 ? 10_000 : 300_000;
        const startMs = now - hours * 3_600_000;
        const column = (value: number | null) => Array<number | null>((hours * 3_600_000) / stepMs).fill(value);
        const none = { powerWatts: [], temperatureCelsius: [] };
        const figures = {
          ...none,
          utilizationPercent: column(hours === 1 ? 80 : 20),
          vramUsedMiB: column(hours === 1 ? 81_559 / 2 : null),
        };
        const series = { [uuid]: { startMs, stepMs, max: figures, ...figures } };
        return { ...noActions.history(hours), at: snapshot.at, series };
      },
    },
  });
  onTestFinished(() => Promise.resolve(api[Symbol.asyncDispose]()));
  const history = createHistory();
  const earlier = await readEarlier(connectLocal(socketPath), snapshot, new AbortController().signal);
  for (const [name, points] of earlier) for (const point of points) history.add(name, point);
  const steps = (measure: "utilizationPercent" | "vramPercent", stepMs: number, count: number) =>
    history.steps(uuid, measure, { now: now - 1, stepMs, count });
  expect(steps("utilizationPercent", 1000, 60)).toEqual(Array(60).fill(80));
  expect(steps("vramPercent", 5000, 60)).toEqual(Array(60).fill(50));
  // 48 columns of five minutes: three hours of the day, and the hour.
  expect(steps("utilizationPercent", 300_000, 48)).toEqual([
    ...Array(35).fill(20),
    expect.any(Number),
    ...Array(12).fill(80),
  ]);
  expect(steps("vramPercent", 300_000, 48).slice(0, 35)).toEqual(Array(35).fill(undefined));
});
