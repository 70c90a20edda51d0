import { describe, expect, it } from "vitest";
import { WORKLOAD_STATES, type WorkloadState } from "../../src/protocol/workload.ts";
import { isTerminal, mayFollow } from "../../src/workload/state.ts";

const TERMINAL: WorkloadState[] = ["succeeded", "failed", "stopped", "preempted", "rejected", "lost"];

/** What the contract allows, written out: every pair that is not here must be refused. */
const FOLLOWERS: Record<WorkloadState, WorkloadState[]> = {
  accepted: ["pulling", "starting", "running", "stopping", ...TERMINAL],
  pulling: ["starting", "running", "stopping", ...TERMINAL],
  starting: ["running", "stopping", ...TERMINAL],
  running: ["stopping", ...TERMINAL],
  stopping: TERMINAL,
  succeeded: [],
  failed: [],
  stopped: [],
  preempted: [],
  rejected: [],
  lost: [],
};

describe("the states of a workload", () => {
  it("end in exactly six", () => {
    expect(WORKLOAD_STATES.filter(isTerminal)).toEqual(TERMINAL);
  });

  const pairs = WORKLOAD_STATES.flatMap((from) => WORKLOAD_STATES.map((to) => ({ from, to })));
  it.each(pairs)("$from → $to", ({ from, to }) => {
    expect(mayFollow(from, to)).toBe(FOLLOWERS[from].includes(to));
  });
});
