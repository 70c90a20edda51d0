import { expect, test } from "vitest";
import { RunTally } from "../../../src/gpu/nvidia/run-tally.ts";
import { createSmi, type SmiRun } from "../../../src/gpu/nvidia/runner.ts";
import { XidTally } from "../../../src/gpu/nvidia/xid-tally.ts";
import { scriptedSmi } from "./scripted.ts";

test("each run is told with its exit code and what it came to", async () => {
  using machine = scriptedSmi();
  machine.says({ xml: "<nvidia_smi_log></nvidia_smi_log>" });
  const runs: SmiRun[] = [];
  const onRun = (run: SmiRun) => void runs.push(run);
  const smi = createSmi({ path: machine.smi.path, onRun });
  await smi.run(["-q", "-x"]);
  machine.breaks({ text: "No devices were found", code: 6 });
  await smi.run(["-L"]);
  await createSmi({ path: "/nonexistent/nvidia-smi", onRun }).run(["-L"]);
  expect(runs.map(({ args, exitCode, problem }) => [args.join(" "), exitCode, problem])).toEqual([
    ["-q -x", 0, undefined],
    ["-L", 6, "no_devices"],
    ["-L", -1, "not_found"],
  ]);
  for (const { durationMs } of runs) expect(durationMs).toBeGreaterThanOrEqual(0);
});

test("one that was cut, by its caller or a pause, is no run", async () => {
  const runs: SmiRun[] = [];
  const smi = createSmi({ path: "sleep", onRun: (run) => void runs.push(run) });
  const cut = new AbortController();
  const first = smi.run(["60"], { signal: cut.signal });
  cut.abort();
  await first;
  const second = smi.run(["60"]);
  expect(await smi.pause()).toEqual([]);
  await second;
  expect(runs).toEqual([]);
});

test("full reads are counted by what they told; a driver without a GPU has answered", () => {
  let now = 1_000;
  const tally = new RunTally(() => now);
  const read = (exitCode: number, problem?: SmiRun["problem"]) =>
    tally.ran({ args: ["-q", "-x"], exitCode, durationMs: 100, ...(problem !== undefined && { problem }) });
  expect(tally.figures).toEqual({ failedReads: 0 });
  read(0);
  expect(tally.figures).toEqual({
    exitCode: 0,
    failedReads: 0,
    lastRead: { isOk: true, durationMs: 100 },
    lastOkAt: 1_000,
  });
  now = 2_000;
  read(9, "no_driver");
  tally.ran({ args: ["--help-query-gpu"], exitCode: 255, durationMs: 1, problem: "failed" });
  expect(tally.figures).toEqual({
    exitCode: 255,
    failedReads: 1,
    lastRead: { isOk: false, durationMs: 100 },
    lastOkAt: 1_000,
  });
  read(6, "no_devices");
  expect(tally.figures).toMatchObject({ failedReads: 1, lastRead: { isOk: true }, lastOkAt: 2_000 });
});

test("Xids are counted by GPU and kind; what is none, and of a board that is not known, is not told", () => {
  const tally = new XidTally();
  const say = (atMs: number, text: string) => tally.heard({ atMs, text });
  say(1, "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=python, GPU has fallen off the bus.");
  say(2, "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.");
  say(3, "NVRM: Xid (PCI:0000:3b:00): 13, Graphics Exception");
  say(4, "NVRM: Xid (PCI:0000:af:00): 31, a board that is not there");
  say(5, "usb 1-1: new high-speed USB device");
  const gpus = [{ uuid: "GPU-a", pci: { busId: "00000000:3B:00.0" } }, { uuid: "GPU-b" }];
  expect(tally.of(gpus)).toEqual([
    { gpu: "GPU-a", xid: 79, count: 2, lastAtMs: 2 },
    { gpu: "GPU-a", xid: 13, count: 1, lastAtMs: 3 },
  ]);
  for (let kind = 0; kind < 2_000; kind += 1) say(6, `NVRM: Xid (PCI:0000:3b:00): ${kind}, made up`);
  expect(tally.of(gpus).length).toBeLessThanOrEqual(512);
});
