import { afterEach, describe, expect, it } from "vitest";
import type { Claim, ClaimSource } from "../../src/preemption/claim.ts";
import { Register, type RegisterDoors } from "../../src/preemption/register.ts";
import type { EventBody } from "../../src/protocol/event.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { Workload } from "../../src/protocol/workload.ts";
import type { PreemptWhy } from "../../src/workload/preempt.ts";
import type { Notice, WorkloadRecord } from "../../src/workload/record.ts";

const NOW = Date.parse("2026-03-01T12:00:00.000Z");

function record(id: string, gpus: string[], notice?: Notice): WorkloadRecord {
  const { registryAuth: _, secretEnv: __, ...spec } = Workload.parse({ id, generation: 1, image: "a" });
  return {
    id,
    generation: 1,
    spec,
    state: "running",
    hadSecrets: false,
    gpus,
    ports: [],
    restarts: 0,
    timings: {},
    acceptedAt: 0,
    ...(notice !== undefined && { notice }),
  };
}

const board = (index: number, mig: string[] = []): Gpu => ({
  index,
  uuid: `GPU-${index}`,
  vendor: "nvidia",
  name: "T",
  links: [],
  health: { status: "healthy", reasons: [] },
  allocatable: true,
  mig: {
    enabled: mig.length > 0,
    instances: mig.map((uuid, n) => ({ uuid, profile: "1g.10gb", vramMiB: 1, gpuInstanceId: n, computeInstanceId: 0 })),
  },
});

const registers: Register[] = [];
afterEach(() => {
  for (const register of registers.splice(0)) register[Symbol.dispose]();
});

/** A register over these records, and all that it did. A notice it gives is taken into the records. */
function stage(records: WorkloadRecord[], changes: Partial<RegisterDoors> = {}) {
  const done: string[] = [];
  const told: EventBody[] = [];
  const silent = { info: () => undefined, error: () => undefined };
  const register = new Register({
    records: () => records,
    preempt: (ids: readonly string[], { begin, cause, deadlineAt }: PreemptWhy) => {
      done.push(`${begin} ${cause} ${[...ids].join("+")}${deadlineAt === undefined ? "" : ` by ${deadlineAt}`}`);
      for (const one of records.filter(({ id }) => ids.includes(id))) {
        one.notice = { cause, noticedAt: 0, ...(deadlineAt !== undefined && { deadlineAt }) };
      }
      return ids.length;
    },
    withdraw: (ids) => {
      done.push(`withdraw ${ids.join("+")}`);
      for (const one of records.filter(({ id }) => ids.includes(id))) delete one.notice;
      return ids.length;
    },
    boards: () => [board(0), board(1), board(2, ["MIG-a", "MIG-b"])],
    tell: (events) => told.push(...events),
    changed: () => undefined,
    now: () => NOW,
    steady: () => 0,
    log: silent,
    ...changes,
  });
  registers.push(register);
  const raise = (source: ClaimSource, ...claims: Partial<Claim>[]) => {
    done.length = 0;
    told.length = 0;
    register.raise(
      source,
      claims.map((claim) => ({ message: source, work: "stop", ...claim })),
    );
    return done;
  };
  return { register, raise, told, done };
}

describe("what claims mean for the work", () => {
  it("hits those on the GPUs that are meant, MIG instances with their board, and all work where the whole node is", () => {
    const { raise } = stage([record("a", ["GPU-0"]), record("b", ["MIG-a"]), record("c", ["GPU-1"]), record("d", [])]);
    expect(raise("owner", { gpus: ["GPU-2"] })).toEqual(["now owner b"]);
    expect(raise("foreign_process", { gpus: ["GPU-0"] })).toEqual(["now foreign_process a", "now owner b"]);
    expect(raise("coordinator", {})).toEqual(["now foreign_process a", "now owner b", "now coordinator c+d"]);
  });

  it("is one notice by the earliest deadline, whoever speaks first", () => {
    for (const order of [
      ["schedule", "cloud_notice"],
      ["cloud_notice", "schedule"],
    ] as const) {
      const { register, raise } = stage([record("a", ["GPU-0"])]);
      const deadlines = { schedule: 60_000, cloud_notice: 30_000 };
      for (const source of order) raise(source, { work: "stop_in_time", deadlineAt: deadlines[source] });
      expect(raise("coordinator")).toEqual(["late cloud_notice a by 30000"]);
      expect(register.holds().map(({ cause }) => cause)).toEqual(order);
    }
  });

  it("to end now is bounded by the deadlines of all", () => {
    const { raise } = stage([record("a", ["GPU-0"])]);
    raise("cloud_notice", { work: "stop_in_time", deadlineAt: 5000 });
    expect(raise("owner", {})).toEqual(["now owner a by 5000"]);
  });

  it("only warned of, or only kept from being lent, ends nothing", () => {
    const { raise, register } = stage([record("a", ["GPU-0"])]);
    expect(raise("cloud_notice", { work: "warn" })).toEqual(["never cloud_notice a"]);
    expect(raise("cloud_notice")).toEqual(["withdraw a"]);
    expect(raise("host_pressure", { work: "leave" })).toEqual([]);
    expect(register.held().node).toBe("host_pressure");
  });
});

describe("a claim that is gone", () => {
  it("takes its notice back, where nobody else would give it", () => {
    const { raise } = stage([record("a", ["GPU-0"])]);
    raise("schedule", { work: "stop_in_time", deadlineAt: 60_000 });
    expect(raise("schedule")).toEqual(["withdraw a"]);
    raise("cloud_notice", { work: "stop_in_time", deadlineAt: 30_000 });
    raise("schedule", { work: "stop_in_time", deadlineAt: 60_000 });
    expect(raise("cloud_notice")).toEqual(["withdraw a", "late schedule a by 60000"]);
  });

  it("is not missed before its source has spoken: a notice of an earlier agent stands", () => {
    const notice: Notice = { cause: "schedule", noticedAt: 0, deadlineAt: 60_000, beginAt: 50_000 };
    const { raise } = stage([record("a", ["GPU-0"], notice)]);
    expect(raise("cloud_notice")).toEqual([]);
    expect(raise("schedule", { work: "stop_in_time", deadlineAt: 60_000 })).toEqual(["late schedule a by 60000"]);
    expect(raise("schedule")).toEqual(["withdraw a"]);
  });
});

describe("what is lent", () => {
  it("is told by node events: of the node, and of single GPUs", () => {
    const { raise, told } = stage([]);
    raise("owner", { gpus: ["GPU-0", "GPU-1"], message: "mine" });
    expect(told).toEqual([
      { kind: "node", state: "draining", reason: "owner", message: "mine", gpus: ["GPU-0", "GPU-1"] },
    ]);
    raise("foreign_process", { gpus: ["GPU-1"] });
    expect(told).toEqual([]);
    raise("owner");
    expect(told).toEqual([{ kind: "node", state: "available", reason: "owner", gpus: ["GPU-0"] }]);
    raise("schedule", { message: "closed" });
    expect(told).toEqual([{ kind: "node", state: "draining", reason: "schedule", message: "closed" }]);
    raise("schedule");
    expect(told).toEqual([{ kind: "node", state: "available", reason: "schedule" }]);
  });

  it("shows since when and until when, and keeps the beginning of a claim that is told again", () => {
    let now = NOW;
    const { register, raise } = stage([], { now: () => now });
    raise("schedule", { untilAt: 3_600_000 });
    now += 1000;
    raise("schedule", { untilAt: 3_599_000, message: "other words" });
    expect(register.holds()).toEqual([
      {
        cause: "schedule",
        message: "other words",
        since: "2026-03-01T12:00:00.000Z",
        until: "2026-03-01T13:00:00.000Z",
      },
    ]);
  });
});

it("what the disk refuses is done when it takes it again", { timeout: 10_000 }, async () => {
  const records = [record("a", ["GPU-0"])];
  let refuses = true;
  const ids = Promise.withResolvers<readonly string[]>();
  const { raise } = stage(records, {
    preempt: (asked) => {
      if (refuses) throw new Error("SQLITE_FULL");
      ids.resolve(asked);
      return asked.length;
    },
  });
  raise("owner", {});
  refuses = false;
  expect(await ids.promise).toEqual(["a"]);
});

it("tells no end of a hold that lies beyond what a date can say", () => {
  const { register } = stage([]);
  register.raise("owner", [
    { message: "m", work: "leave", untilAt: Number.MAX_SAFE_INTEGER },
    { message: "n", work: "leave", untilAt: 1e300 },
  ]);
  expect(register.holds().map(({ until }) => until)).toEqual([undefined, undefined]);
});
