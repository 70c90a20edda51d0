import { expect, test } from "vitest";
import { histogramSamples } from "../../src/metrics/histogram.ts";
import { ENDS, EVENT_KINDS, Tally } from "../../src/metrics/tally.ts";
import { type DurableEvent, EventBody, PreemptionCause } from "../../src/protocol/event.ts";
import { WORKLOAD_STATES } from "../../src/protocol/workload.ts";
import { isTerminal } from "../../src/workload/state.ts";

let seq = 0;
const AT = "2026-01-02T03:04:05.000Z";
const event = (body: object): DurableEvent => ({ seq: ++seq, at: AT, ...EventBody.parse(body) });
const workload = (more: object) => event({ kind: "workload", workload: "w", generation: 1, ...more });

test("everything that may be counted is there from the start, as zero", () => {
  const { events, preemptions, finished, notices } = new Tally().figures;
  expect([...events.keys()].sort()).toEqual([...EVENT_KINDS].sort());
  expect(EVENT_KINDS).toHaveLength(EventBody.options.length);
  expect([...preemptions.keys()]).toEqual(PreemptionCause.options);
  expect(finished.map(({ state }) => state)).toEqual(ENDS);
  expect([...ENDS].sort()).toEqual(WORKLOAD_STATES.filter(isTerminal).sort());
  expect([...events.values(), ...preemptions.values(), ...finished.map(({ count }) => count), notices.count]).toEqual(
    expect.arrayContaining([0]),
  );
});

test("a workload's way is counted where it is written down: its pull once, its end with its reason", () => {
  const tally = new Tally();
  tally.appended([workload({ state: "accepted" })]);
  tally.appended([workload({ state: "pulling" })]);
  tally.appended([workload({ state: "starting", timings: { pullMs: 2500 } })]);
  tally.appended([workload({ state: "running", timings: { pullMs: 2500, startMs: 3 } })]);
  tally.appended([workload({ state: "failed", reason: "exit_code", timings: { pullMs: 2500 } })]);
  tally.appended([workload({ state: "rejected", reason: "no_matching_gpu" })]);
  const { events, finished, pulls } = tally.figures;
  expect(events.get("workload")).toBe(6);
  expect(finished.filter(({ count }) => count > 0)).toEqual([
    { state: "failed", reason: "exit_code", count: 1 },
    { state: "rejected", reason: "no_matching_gpu", count: 1 },
  ]);
  expect({ count: pulls.count, sum: pulls.sum }).toEqual({ count: 1, sum: 2.5 });
});

test("reasons that are no codes, and endless new ones, do not become series", () => {
  const tally = new Tally();
  tally.appended([workload({ state: "failed", reason: 'x"} 1\n' })]);
  for (let at = 0; at < 1000; at += 1) tally.appended([workload({ state: "failed", reason: `code_${at}` })]);
  const { finished } = tally.figures;
  expect(finished).toContainEqual({ state: "failed", reason: "other", count: 1 });
  expect(finished.length).toBeLessThanOrEqual(128);
});

test("a preemption is counted for the workload it ended, not for one that came to its own end under notice", () => {
  const tally = new Tally();
  const notice = { kind: "preemption", phase: "notice", cause: "owner", workloads: ["a", "b"], gpus: [] };
  tally.appended([event({ ...notice, deadline: "2026-01-02T03:04:35.000Z" })]);
  tally.appended([event({ ...notice, cause: "schedule" })]);
  const finished = (id: string) => event({ ...notice, phase: "finished", workloads: [id] });
  tally.appended([
    event({ kind: "workload", workload: "a", generation: 1, state: "preempted", reason: "owner" }),
    finished("a"),
  ]);
  tally.appended([event({ kind: "workload", workload: "b", generation: 1, state: "succeeded" }), finished("b")]);
  const { preemptions, notices } = tally.figures;
  expect(preemptions.get("owner")).toBe(1);
  expect(preemptions.get("schedule")).toBe(0);
  // A warning has no deadline, and is no notice of so many seconds.
  expect({ count: notices.count, sum: notices.sum }).toEqual({ count: 1, sum: 30 });
});

test("usage is summed over its records, by GPU", () => {
  const tally = new Tally();
  const usage = { kind: "usage", workload: "w", generation: 1, final: false, signature: "" };
  const minute = { from: "2026-01-02T03:04:00.000Z", to: "2026-01-02T03:05:00.000Z" };
  tally.appended([event({ ...usage, ...minute, gpus: ["GPU-a", "GPU-b"], gpuSeconds: 120, energyJoules: 30_000 })]);
  tally.appended([event({ ...usage, ...minute, gpus: ["GPU-a"], gpuSeconds: 60 })]);
  tally.appended([event({ ...usage, ...minute, gpus: [], gpuSeconds: 0 })]);
  const { gpuSeconds, energyJoules, workloadSeconds } = tally.figures;
  expect(Object.fromEntries(gpuSeconds)).toEqual({ "GPU-a": 120, "GPU-b": 60 });
  expect({ energyJoules, workloadSeconds }).toEqual({ energyJoules: 30_000, workloadSeconds: 180 });
});

test("a pull's bytes are counted as they come, also where it begins anew", () => {
  const tally = new Tally();
  const w = { id: "w", generation: 1 };
  for (const bytes of [0, 100, 250, 40, 260]) tally.pulling(w, bytes);
  expect(tally.figures.pulledBytes).toBe(260);
  tally.appended([workload({ state: "starting" })]);
  tally.pulling(w, 10);
  expect(tally.figures.pulledBytes).toBe(270);
});

test("a histogram's buckets hold all that is no greater, the last one everything", () => {
  const tally = new Tally();
  for (const pullMs of [0, 100, 100.1, 5_000, 9_999_999]) {
    tally.appended([workload({ state: "starting", timings: { pullMs } })]);
  }
  const samples = histogramSamples(tally.figures.pulls);
  const bucket = (le: string) => samples.find(({ part, labels }) => part === "_bucket" && labels.le === le)?.value;
  expect([bucket("0.1"), bucket("0.5"), bucket("5"), bucket("3600"), bucket("+Inf")]).toEqual([2, 3, 4, 4, 5]);
  expect(samples.at(-1)).toEqual({ part: "_count", labels: {}, value: 5 });
});
