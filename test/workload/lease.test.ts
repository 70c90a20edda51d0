import { expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import { silenceEnds } from "../../src/workload/lease.ts";
import type { WorkloadRecord } from "../../src/workload/record.ts";

function record(onDisconnect: { action: "continue" | "stop"; afterSeconds: number }): WorkloadRecord {
  const {
    registryAuth: _,
    secretEnv: __,
    ...spec
  } = Workload.parse({ id: "w", generation: 1, image: "a", onDisconnect });
  return {
    id: "w",
    generation: 1,
    spec,
    state: "running",
    hadSecrets: false,
    gpus: [],
    ports: [],
    restarts: 0,
    timings: {},
    acceptedAt: 0,
  };
}

it.each([
  { action: "continue", afterSeconds: 0, silentMs: 10 ** 9, ends: false },
  { action: "stop", afterSeconds: 30, silentMs: 29_999, ends: false },
  { action: "stop", afterSeconds: 30, silentMs: 30_000, ends: true },
  { action: "stop", afterSeconds: 0, silentMs: 0, ends: true },
  // The clock was set back: the silence has not begun yet.
  { action: "stop", afterSeconds: 1, silentMs: -5_000, ends: false },
] as const)("$action after $afterSeconds s, silent for $silentMs ms: ends = $ends", ({ silentMs, ends, ...policy }) => {
  expect(silenceEnds(record(policy), 1_000_000, 1_000_000 + silentMs)).toBe(ends);
});
