import { PassThrough } from "node:stream";
import type { ReadStream, WriteStream } from "node:tty";
import { expect, it } from "vitest";
import type { EarlierHistory, HistoryPoint } from "../../../src/cli/watch/history.ts";
import { watch } from "../../../src/cli/watch/watch.ts";
import type { Snapshot } from "../../../src/local/snapshot.ts";
import { exampleSnapshot } from "../../local/snapshot-example.ts";

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
