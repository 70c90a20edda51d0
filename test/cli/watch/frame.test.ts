import { expect, it } from "vitest";
import { frame, type Picture } from "../../../src/cli/watch/frame.ts";
import { FIRST_VIEW } from "../../../src/cli/watch/keys.ts";
import { widthOfLine } from "../../../src/cli/watch/line.ts";
import { busyPicture, crowdedPicture, screen, seen, textOf } from "./pictures.ts";

process.env.TZ = "UTC";

const golden = (name: string) => `frames/${name}.txt`;

it.each([
  [120, 40],
  [80, 24],
  [60, 20],
  [40, 12],
  [20, 4],
])("at %i × %i, what matters most is there", async (columns, rows) => {
  await expect(seen(busyPicture(), screen(columns, rows))).toMatchFileSnapshot(golden(`${columns}x${rows}`));
});

it("many GPUs and workloads: what does not fit is counted, and can be scrolled to", async () => {
  const picture = crowdedPicture();
  await expect(seen(picture, screen(80, 16))).toMatchFileSnapshot(golden("crowded"));
  const { last } = frame(picture, FIRST_VIEW, screen(80, 16));
  await expect(seen(picture, screen(80, 16), { offset: 10 })).toMatchFileSnapshot(golden("crowded-scrolled"));
  const end = seen(picture, screen(80, 16), { offset: last });
  expect(end).toMatch(/^job-10 +succeeded/m);
  expect(end).not.toContain("more workload");
  // Farther than to the end is the end.
  expect(seen(picture, screen(80, 16), { offset: 1000 })).toBe(end);
});

it("the last few that ended, or all of them", () => {
  const { snapshot, ...picture } = busyPicture();
  const [, , bad] = snapshot.workloads;
  const ended = Array.from({ length: 9 }, (_, index) => ({
    ...(bad as NonNullable<typeof bad>),
    id: `bad-${index}`,
    finishedAt: `2026-01-02T01:0${index}:00.000Z`,
  }));
  const many: Picture = { ...picture, snapshot: { ...snapshot, workloads: ended } };
  const few = seen(many, screen(100, 60));
  expect(few.match(/^bad-\d/gm)).toEqual(["bad-8", "bad-7", "bad-6", "bad-5", "bad-4"]);
  expect(few).toContain("… 4 more that ended (w)");
  expect(seen(many, screen(100, 60), { allEnded: true }).match(/^bad-\d/gm)).toHaveLength(9);
});

it("without Unicode it is all ASCII, line by line as long as before", async () => {
  const picture = busyPicture();
  picture.snapshot.node.name = "Größe 日本";
  const ascii = frame(picture, FIRST_VIEW, screen(100, 40, { unicode: false })).lines;
  const unicode = frame(picture, FIRST_VIEW, screen(100, 40)).lines;
  await expect(textOf(ascii)).toMatchFileSnapshot(golden("ascii"));
  expect(textOf(ascii)).toMatch(/^[\n\x20-\x7e]*$/);
  expect(ascii.map(widthOfLine)).toEqual(unicode.map(widthOfLine));
});

it("while the daemon is away its last picture stays, dim, with since when; nothing passes but the time of that", async () => {
  const picture = busyPicture();
  const away = { since: picture.now + 2000, isGone: true, message: "the daemon is not running: there is no socket" };
  const later = { ...picture, now: picture.now + 32_000, away };
  await expect(seen(later, screen(80, 24))).toMatchFileSnapshot(golden("away"));
  const [title, why, ...rest] = frame(later, FIRST_VIEW, screen(80, 24)).lines;
  expect([title, why].flat().some((span) => span?.tones?.includes("dim") && span.text.includes("daemon"))).toBe(false);
  expect(rest.flat().every((span) => span.tones?.join() === "dim")).toBe(true);
  const slow = { ...later, away: { ...away, isGone: false, message: "the daemon does not answer" } };
  expect(seen(slow, screen(80, 24))).toMatch(
    /^rig-01 {2}no answer since 03:04:07, for 30 s +03:04:37\nthe daemon does/,
  );
});

it("a countdown ticks in seconds, and never below zero", () => {
  const picture = busyPicture();
  const at = (seconds: number) =>
    seen({ ...picture, now: picture.now + seconds * 1000 }, screen(80, 24)).split("\n")[1];
  expect([0, 1, 30, 37, 60].map(at)).toEqual([
    "▲ train-1 leaves GPU 0 in 38 s: taken back by its owner",
    "▲ train-1 leaves GPU 0 in 37 s: taken back by its owner",
    "▲ train-1 leaves GPU 0 in 8 s: taken back by its owner",
    "▲ train-1 leaves GPU 0 in 1 s: taken back by its owner",
    "▲ train-1 leaves GPU 0 in 0 s: taken back by its owner",
  ]);
});

it("a coordinator out of reach is told above the GPUs, with the seconds to the next try", () => {
  const picture = busyPicture();
  picture.snapshot.connection = {
    ...{ url: "wss://coordinator.example", state: "waiting", since: "2026-01-02T03:00:00.000Z", unackedEvents: 3 },
    ...{ lastError: "connection refused", retryAt: "2026-01-02T03:04:12.000Z" },
  };
  expect(seen(picture, screen(120, 5)).split("\n")[2]).toBe(
    "coordinator  not connected for 4 min  next try in 7 s  3 events to deliver  connection refused",
  );
  expect(seen(picture, screen(40, 4)).split("\n")[2]).toBe("not connected for 4 min  next try in 7 s");
});

it("what others wrote is shown, not obeyed", () => {
  const picture = busyPicture();
  picture.snapshot.node.name = "rig\u001b[2J\n\u009b1mtwo\u202e";
  picture.snapshot.problems = [{ code: "x", message: "a\u0007b\r\nc" }];
  const text = seen(picture, screen(100, 30));
  expect(text).toMatch(/^rig�\[2J �1mtwo� {2}available/);
  expect(text).toContain("problem   a�b c\n");
});

it("help says every key", async () => {
  await expect(seen(busyPicture(), screen(80, 24), { help: true })).toMatchFileSnapshot(golden("help"));
});

it("an empty node says so", () => {
  const picture = busyPicture();
  Object.assign(picture.snapshot, { gpus: [], workloads: [], holds: [], problems: [] });
  expect(seen(picture, screen(80, 24))).toMatch(/\nNo GPU is in sight\.\n(?:.*\n)*No workloads\.\n/);
});

it("no window is too small or too large for any picture", () => {
  const wide = busyPicture();
  wide.snapshot.node.name = "日本語のとても長い名前のマシン👩‍👩‍👧é";
  for (const picture of [busyPicture(), crowdedPicture(), wide]) {
    for (let columns = 1; columns <= 200; columns += columns < 60 ? 1 : 17) {
      for (const rows of [1, 2, 3, 5, 8, 13, 24, 60]) {
        for (const unicode of [true, false]) {
          const { lines } = frame(picture, { ...FIRST_VIEW, offset: rows % 4 }, screen(columns, rows, { unicode }));
          const where = `${columns} × ${rows}`;
          expect(lines.length, where).toBeLessThanOrEqual(rows);
          expect(Math.max(...lines.map(widthOfLine)), where).toBeLessThanOrEqual(columns);
          expect(lines.length, where).toBeGreaterThan(0);
        }
      }
    }
  }
});
