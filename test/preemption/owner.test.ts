import { afterEach, expect, it, vi } from "vitest";
import type { Claim } from "../../src/preemption/claim.ts";
import { createCoordinatorDrain } from "../../src/preemption/coordinator-drain.ts";
import { createOwner, type Owner } from "../../src/preemption/owner.ts";

const owners: Owner[] = [];
afterEach(() => {
  for (const owner of owners.splice(0)) owner[Symbol.dispose]();
  vi.useRealTimers();
});

/** An owner with a disk; `again` is the same after a restart of the agent. */
function stage(disk: { text?: string; refuses?: boolean } = {}) {
  vi.useFakeTimers({ now: Date.parse("2026-03-01T12:00:00.000Z") });
  const open = () => {
    const raised: (readonly Claim[])[] = [];
    const memory = {
      get: () => disk.text,
      set: (text: string | undefined) => {
        if (disk.refuses === true) throw new Error("SQLITE_FULL");
        if (text === undefined) delete disk.text;
        else disk.text = text;
      },
    };
    const raise = (claims: readonly Claim[]) => void raised.push(claims);
    const owner = createOwner({ memory, raise, now: Date.now, steady: Date.now });
    owners.push(owner);
    return { owner, last: () => raised.at(-1) ?? [] };
  };
  return { ...open(), again: open, disk };
}

it("a drain is kept until it is lifted, over restarts", () => {
  const { owner, last, again } = stage();
  expect(last()).toEqual([]);
  owner.drain({});
  const since = "2026-03-01T12:00:00.000Z";
  expect(last()).toEqual([{ message: "drained by its owner", work: "stop", since }]);
  vi.advanceTimersByTime(3_600_000);
  const next = again();
  expect(next.last()).toEqual([{ message: "drained by its owner", work: "stop", since }]);
  next.owner.resume();
  expect(next.last()).toEqual([]);
  expect(again().last()).toEqual([]);
});

it("maintenance is a drain that no second drain makes a mere one", () => {
  const { owner, last } = stage();
  owner.drain({ maintenance: true });
  owner.drain({ graceSeconds: 5 });
  expect(owner.isForMaintenance).toBe(true);
  expect(last()).toMatchObject([{ message: "drained by its owner for maintenance", deadlineAt: Date.now() + 5000 }]);
});

it("a reclaim for a while is lifted by itself, also by an agent that comes later", () => {
  const { owner, last, again, disk } = stage();
  owner.reclaim({ gpus: ["GPU-1", "GPU-0"], forMs: 7_200_000 });
  owner.reclaim({ forMs: 3_600_000 });
  expect(last()).toMatchObject([
    { gpus: ["GPU-0", "GPU-1"], untilAt: Date.now() + 7_200_000 },
    { untilAt: Date.now() + 3_600_000 },
  ]);
  vi.advanceTimersByTime(3_600_000);
  expect(last()).toMatchObject([{ gpus: ["GPU-0", "GPU-1"] }]);
  vi.setSystemTime(Date.now() + 3_600_001);
  expect(again().last()).toEqual([]);
  expect(disk.text).toBeUndefined();
});

it("a reclaim for longer than a timer can count is not lifted early", () => {
  const { owner, last } = stage();
  owner.reclaim({ forMs: 40 * 86_400_000 });
  vi.advanceTimersByTime(30 * 86_400_000);
  expect(last()).toHaveLength(1);
  vi.advanceTimersByTime(10 * 86_400_000);
  expect(last()).toEqual([]);
});

it("the same GPUs reclaimed again get the new end; single ones are lent again on their own", () => {
  const { owner, last } = stage();
  owner.reclaim({ gpus: ["GPU-0", "GPU-1"], forMs: 1000 });
  owner.reclaim({ gpus: ["GPU-1", "GPU-0"] });
  expect(last()).toHaveLength(1);
  expect(last()[0]).not.toHaveProperty("untilAt");
  owner.resume({ gpus: ["GPU-0"] });
  expect(last()).toMatchObject([{ gpus: ["GPU-1"] }]);
  owner.resume({ gpus: ["GPU-1"] });
  expect(last()).toEqual([]);
});

it("a word that the disk refuses is not given", () => {
  const { owner, last, disk } = stage();
  disk.refuses = true;
  expect(() => owner.reclaim({})).toThrow("SQLITE_FULL");
  expect(last()).toEqual([]);
});

it("an end that the disk refuses comes all the same", () => {
  const { owner, last, disk } = stage();
  owner.reclaim({ forMs: 1000 });
  disk.refuses = true;
  vi.advanceTimersByTime(1000);
  expect(last()).toEqual([]);
});

it.each(["{", "[]", '{"reclaims":[{"gpus":[]}]}', "null"])("what cannot be read on disk is no word: %s", (text) => {
  expect(stage({ text }).last()).toEqual([]);
});

it("the coordinator's drain is a word of its own", () => {
  const raised: (readonly Claim[])[] = [];
  let isDraining = true;
  const memory = {
    get: () => isDraining,
    set(value: boolean) {
      isDraining = value;
    },
  };
  const drain = createCoordinatorDrain(
    memory,
    (claims) => void raised.push(claims),
    () => 1000,
  );
  expect(raised.at(-1)).toEqual([{ message: "drained by the coordinator", work: "stop" }]);
  drain.drain({ graceSeconds: 2 });
  expect(raised.at(-1)).toMatchObject([{ deadlineAt: 3000 }]);
  drain.resume();
  expect([raised.at(-1), isDraining]).toEqual([[], false]);
});
