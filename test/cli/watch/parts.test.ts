import { describe, expect, it } from "vitest";
import { bar, graph } from "../../../src/cli/watch/graph.ts";
import { createHistory } from "../../../src/cli/watch/history.ts";
import { FIRST_VIEW, type Key, wishOf } from "../../../src/cli/watch/keys.ts";
import { cutLine, inAscii, plain, say } from "../../../src/cli/watch/line.ts";
import { createPullPaces } from "../../../src/cli/watch/pull-pace.ts";
import type { Snapshot, WorkloadStatus } from "../../../src/local/snapshot.ts";
import { exampleSnapshot } from "../../local/snapshot-example.ts";

describe("a graph", () => {
  const text = (values: (number | undefined)[], height = 1) =>
    graph(values, height, "cyan").map((line) => line.map((span) => span.text).join(""));

  it("has eight steps in a row; what is there is seen, what is not known is a gap", () => {
    expect(text([0, 1, 25, 50, 75, 100, 120, undefined, 50])).toEqual(["▁▁▂▄▆██ ▄"]);
    expect(graph([0, 1], 1, "cyan")[0]).toEqual([
      { text: "▁", tones: ["dim"] },
      { text: "▁", tones: ["cyan"] },
    ]);
  });

  it("grows upwards over several rows", () => {
    expect(text([0, 10, 50, 60, 100, undefined], 3)).toEqual(["    █ ", "  ▄▆█ ", "▁▂███ "]);
  });

  it("a bar is as full as the share, to half a column", () => {
    expect([0, 0.25, 0.5, 1, 2].map((share) => plain(bar(share, 6, "green")))).toEqual([
      "──────",
      "━╸────",
      "━━━───",
      "━━━━━━",
      "━━━━━━",
    ]);
  });
});

describe("history", () => {
  const steps = (history: ReturnType<typeof createHistory>, now: number, stepMs: number, count: number) =>
    history.steps("GPU-0", "utilizationPercent", { now, stepMs, count });

  it("means over each step, with gaps where nothing was seen", () => {
    const history = createHistory();
    for (const [at, utilizationPercent] of [
      [1_000_000, 10],
      [1_000_500, 20],
      [1_002_000, 40],
      [1_005_000, 90],
    ] as const) {
      history.add("GPU-0", { at, utilizationPercent });
    }
    expect(steps(history, 1_005_999, 1000, 7)).toEqual([undefined, 15, undefined, 40, undefined, undefined, 90]);
    expect(steps(history, 1_005_999, 5000, 3)).toEqual([undefined, (10 + 20 + 40) / 3, 90]);
    expect(history.steps("GPU-0", "vramPercent", { now: 1_005_000, stepMs: 1000, count: 2 })).toEqual([
      undefined,
      undefined,
    ]);
    expect(history.steps("GPU-9", "vramPercent", { now: 0, stepMs: 1000, count: 1 })).toEqual([undefined]);
  });

  it("takes what was before it, in any order, a day back by half minutes", () => {
    const history = createHistory();
    const now = 1_800_000_000_000;
    history.add("GPU-0", { at: now, utilizationPercent: 100 });
    for (let minute = 1; minute < 1440; minute += 1) {
      history.add("GPU-0", { at: now - minute * 60_000, utilizationPercent: minute % 2 === 0 ? 40 : 60 });
    }
    const hours = steps(history, now, 1_200_000, 72);
    expect(hours).toHaveLength(72);
    for (const value of hours.slice(1, -1)) expect(value).toBe(50);
    // Older than the ring of seconds is: no second of it may stand for one of now.
    history.add("GPU-0", { at: now - 1_200_000, utilizationPercent: 1 });
    expect(steps(history, now, 1000, 3)).toEqual([undefined, undefined, 100]);
  });

  it("what lasted a while fills all of it, at any zoom, also where that is longer than can be kept", () => {
    const history = createHistory();
    const now = 1_800_000_000_000;
    history.add("GPU-0", { at: now - 200_000_000, lastsMs: 200_000_000 - 20_000, utilizationPercent: 30 });
    history.add("GPU-0", { at: now - 20_000, lastsMs: 10_000, utilizationPercent: 50 });
    history.add("GPU-0", { at: now - 10_000, lastsMs: 9_000, utilizationPercent: 70 });
    expect(steps(history, now, 5000, 6)).toEqual([30, 50, 50, 70, 70, undefined]);
    expect(
      steps(history, now, 1_200_000, 72)
        .slice(1, -2)
        .every((value) => value === 30),
    ).toBe(true);
  });

  it("reads a snapshot: utilization, and VRAM as a share", () => {
    const history = createHistory();
    const snapshot = exampleSnapshot();
    history.see(snapshot);
    const at = { now: Date.parse(snapshot.at), stepMs: 1000, count: 1 };
    const uuid = snapshot.gpus[0]?.uuid ?? "";
    expect(history.steps(uuid, "utilizationPercent", at)).toEqual([93]);
    expect(history.steps(uuid, "vramPercent", at)[0]).toBeCloseTo((100 * 40_960) / 81_559);
  });
});

describe("the pace of a pull", () => {
  const pulling = (second: number, mebibytes: number, totalMiB = 1000): Snapshot => {
    const snapshot = exampleSnapshot();
    const [workload] = snapshot.workloads as [WorkloadStatus];
    const pull = { currentBytes: mebibytes * 1024 * 1024, totalBytes: totalMiB * 1024 * 1024 };
    const at = new Date(Date.parse(snapshot.at) + second * 1000).toISOString();
    return { ...snapshot, at, workloads: [{ ...workload, state: "pulling", pull }] };
  };

  it("is that of the last ten seconds, with the time that is left", () => {
    const paces = createPullPaces();
    const paceAt = (second: number, mebibytes: number, totalMiB?: number) => {
      const snapshot = pulling(second, mebibytes, totalMiB);
      paces.see(snapshot);
      return paces.of(snapshot.workloads[0] as WorkloadStatus);
    };
    expect(paceAt(0, 100)).toEqual({});
    expect(paceAt(1, 200)).toEqual({});
    expect(paceAt(2, 300)).toEqual({ bytesPerSecond: 100 * 1024 * 1024, remainingMs: 7000 });
    // Ten seconds later the fast beginning is forgotten.
    expect(paceAt(12, 310)).toEqual({ bytesPerSecond: 1024 * 1024, remainingMs: 690_000 });
    // It stands still; how much there is in all is not known.
    expect(paceAt(22, 310)).toEqual({ bytesPerSecond: 0 });
    expect(paceAt(24, 320, 0)).toMatchObject({ bytesPerSecond: expect.any(Number) as number });
    expect(paceAt(24, 320, 0)).not.toHaveProperty("remainingMs");
    // It has begun anew.
    expect(paceAt(25, 1)).toEqual({});
    paces.see(exampleSnapshot());
    expect(paceAt(26, 5)).toEqual({});
  });
});

describe("keys", () => {
  const press = (key: Key, view = FIRST_VIEW) => wishOf(key, view, 20);

  it.each([
    [{ name: "q" }, "quit"],
    [{ name: "c", ctrl: true }, "quit"],
    [{ name: "z", ctrl: true }, "suspend"],
    [{ name: "l", ctrl: true }, "redraw"],
    [{ name: "down" }, { offset: 1 }],
    [{ name: "k" }, { offset: 0 }],
    [{ name: "pagedown" }, { offset: 10 }],
    [{ name: "end" }, { offset: 20 }],
    [{ name: "w" }, { allEnded: true }],
    [{ sequence: "?" }, { help: true }],
    [{ sequence: "+" }, { zoom: 0 }],
    [{ sequence: "-" }, { zoom: 2 }],
    [{ name: "x" }, undefined],
    [{ name: "constructor", ctrl: true }, undefined],
  ] as const)("%j", (key, wish) => {
    expect(press(key)).toEqual(typeof wish === "object" ? { view: { ...FIRST_VIEW, ...wish } } : wish);
  });

  it("scrolling keeps within what there is, also where that has become less", () => {
    expect(press({ name: "up" }, { ...FIRST_VIEW, offset: 30 })).toEqual({ view: { ...FIRST_VIEW, offset: 19 } });
    expect(press({ name: "down" }, { ...FIRST_VIEW, offset: 30 })).toEqual({ view: { ...FIRST_VIEW, offset: 20 } });
  });

  it("any key leaves the help, and does nothing else", () => {
    const helped = { ...FIRST_VIEW, help: true };
    expect(press({ name: "down" }, helped)).toEqual({ view: FIRST_VIEW });
    expect(press({ name: "c", ctrl: true }, helped)).toBe("quit");
  });
});

describe("a line", () => {
  it("is cut at a column, not within a wide letter, and says so", () => {
    const line = [say("日本"), say("語の"), say("x", "bold")];
    expect([9, 8, 7, 5, 4, 2, 1, 0].map((room) => plain(cutLine(line, room)))).toEqual([
      "日本語のx",
      "日本語…",
      "日本語…",
      "日本…",
      "日…",
      "…",
      "…",
      "",
    ]);
  });

  it("in ASCII keeps its columns: accents go, what has no likeness is a question mark", () => {
    expect(plain(inAscii([say("Größe 61 °C 日本 → … × é €")]))).toBe("Gro?e 61 C  ???? > ~ x e ?");
  });
});
