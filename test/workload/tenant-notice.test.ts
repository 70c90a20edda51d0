import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Workload, type WorkloadInput } from "../../src/protocol/workload.ts";
import { admit } from "../../src/workload/admit.ts";
import type { SmallFile } from "../../src/workload/needs.ts";
import { LABEL_NODE } from "../../src/workload/needs.ts";
import type { StopOrder } from "../../src/workload/record.ts";
import {
  NOTICE_FILE,
  noticeOf,
  noticeOfEnd,
  noticeText,
  type TenantNotice,
  tellTenant,
} from "../../src/workload/tenant-notice.ts";
import { neverAborted, openEngine, outputOf, pullSmallImage, removeAll, specFor } from "../engine/harness.ts";
import { containersLeft, haveEngine } from "../support/engine.ts";

const AT = Date.parse("2026-01-31T12:00:00.000Z");

function specOf(input: Partial<WorkloadInput> = {}) {
  const {
    registryAuth: _,
    secretEnv: __,
    ...spec
  } = Workload.parse({ id: "w", generation: 1, image: "a:1", ...input });
  return spec;
}

describe("the file a tenant reads", () => {
  it("says what, why and until when, on one line", () => {
    const notice: TenantNotice = {
      phase: "notice",
      cause: "owner",
      message: 'my "turn"\n',
      at: AT,
      deadline: AT + 1500,
    };
    const text = noticeText(notice);
    expect(text).toMatch(/^[^\n]+\n$/);
    expect(JSON.parse(text)).toEqual({
      version: 1,
      phase: "notice",
      cause: "owner",
      message: 'my "turn"\n',
      at: "2026-01-31T12:00:00.000Z",
      deadline: "2026-01-31T12:00:01.500Z",
    });
  });

  it("leaves out what is not known", () => {
    const text = noticeText({ phase: "withdrawn", cause: "cloud_notice", at: AT });
    expect(Object.keys(JSON.parse(text) as object)).toEqual(["version", "phase", "cause", "at"]);
  });
});

describe("the notice a tenant is told", () => {
  // The wall clock was set back by an hour since the boot.
  const clocks = { now: () => AT, steady: () => AT + 3_600_000 };
  const STEADY = clocks.steady();
  const order = (changes: Partial<StopOrder> = {}, told: Partial<NonNullable<StopOrder["preemption"]>> = {}) => ({
    outcome: "preempted" as const,
    reason: "owner",
    graceSeconds: 10,
    ...changes,
    preemption: { cause: "owner" as const, ...told },
  });
  const checkpoint = { exec: ["save"], timeoutSeconds: 60 };

  it("has the deadline that was told to all, by the wall clock", () => {
    const stop = order({ message: "now" }, { noticedAt: STEADY - 100, dueAt: STEADY + 5000 });
    expect(noticeOfEnd({ spec: specOf({ stop: { checkpoint } }), stop }, clocks)).toEqual({
      phase: "notice",
      cause: "owner",
      message: "now",
      at: AT - 100,
      deadline: AT + 5000,
    });
  });

  it("has the order's end where that is sooner, and never one in the past", () => {
    const noticedAt = STEADY - 100;
    const sooner = order({ killAt: STEADY + 1000 }, { noticedAt, dueAt: STEADY + 5000 });
    expect(noticeOfEnd({ spec: specOf(), stop: sooner }, clocks)?.deadline).toBe(AT + 1000);
    const past = order({ killAt: STEADY - 5000 }, { noticedAt });
    expect(noticeOfEnd({ spec: specOf(), stop: past }, clocks)?.deadline).toBe(AT - 100);
  });

  it("has the time of checkpoint and grace where the order says nothing", () => {
    expect(noticeOfEnd({ spec: specOf(), stop: order() }, clocks)).toMatchObject({ at: AT, deadline: AT + 10_000 });
    const spec = specOf({ stop: { checkpoint } });
    expect(noticeOfEnd({ spec, stop: order() }, clocks)?.deadline).toBe(AT + 70_000);
  });

  it("is none for a stop that takes no GPU back, nor for one that a notice has announced", () => {
    const stop = { outcome: "stopped" as const, reason: "released", graceSeconds: 10 };
    expect(noticeOfEnd({ spec: specOf(), stop }, clocks)).toBeUndefined();
    expect(noticeOfEnd({ spec: specOf() }, clocks)).toBeUndefined();
    const notice = { cause: "owner" as const, noticedAt: STEADY - 9000, deadlineAt: STEADY + 1000 };
    const announced = order({}, { noticedAt: STEADY - 9000 });
    expect(noticeOfEnd({ spec: specOf(), stop: announced, notice }, clocks)).toBeUndefined();
    const another = order({}, { noticedAt: STEADY });
    expect(noticeOfEnd({ spec: specOf(), stop: another, notice }, clocks)?.at).toBe(AT);
  });

  it("ahead of time has the deadline or, as a warning, none; withdrawn it has neither that nor the old words", () => {
    const notice = { cause: "schedule" as const, message: "at six", noticedAt: STEADY - 100 };
    const told = { phase: "notice", cause: "schedule", message: "at six", at: AT - 100 };
    expect(noticeOf(notice, clocks)).toEqual(told);
    expect(noticeOf({ ...notice, deadlineAt: STEADY + 60_000 }, clocks)).toEqual({ ...told, deadline: AT + 60_000 });
    const withdrawn = noticeOf({ ...notice, deadlineAt: STEADY + 60_000, withdrawn: true }, clocks);
    expect(withdrawn).toEqual({ phase: "withdrawn", cause: "schedule", at: AT });
  });
});

describe("a cache where the notice comes", () => {
  const node = {
    gpus: [],
    holders: new Map(),
    kept: new Map(),
    cpus: 4,
    memoryMiB: 4096,
    live: [],
    policy: {
      images: ["*"],
      hostPorts: { from: 30_000, to: 30_001 },
      hostIp: "127.0.0.1",
      reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
      allowRoot: true,
      pullNoProgressMs: 1000,
      preemptWithinMs: 60_000,
      priorityPreemption: true,
    },
  };
  const admitted = (path: string) =>
    admit(Workload.parse({ id: "w", generation: 1, image: "a:1", caches: [{ name: "c", path }] }), node);

  it.each(["/run/gpunode", "/run/gpunode/", "//run/./gpunode"])("is refused: %s", (path) => {
    expect(() => admitted(path)).toThrow(/cache "c" cannot be at \/run\/gpunode/);
  });

  it.each(["/run", "/run/gpunode2", "/data"])("is not %s", (path) => {
    expect(admitted(path)).toMatchObject({ gpus: [] });
  });
});

describe("telling the tenant", () => {
  const notice: TenantNotice = { phase: "notice", cause: "owner", at: AT, deadline: AT };
  const tenant = { containerId: "c1", noticeSignal: "SIGUSR1" };

  function stage(changes: { putFile?: () => Promise<void>; kill?: () => Promise<void> } = {}) {
    const done: string[] = [];
    const warned: string[] = [];
    const engine = {
      putFile: async (id: string, { path }: SmallFile) => {
        await changes.putFile?.();
        done.push(`${id} ${path}`);
      },
      kill: async (id: string, signal: string) => {
        await changes.kill?.();
        done.push(`${id} ${signal}`);
      },
    };
    return { engine, done, warned, log: { warn: (_: object, message: string) => void warned.push(message) } };
  }

  it("writes the file first and then sends the signal that was asked for", async () => {
    const { engine, done, log } = stage({ putFile: () => sleep(20) });
    await tellTenant(engine, tenant, notice, { signal: neverAborted(), log });
    expect(done).toEqual([`c1 ${NOTICE_FILE}`, "c1 SIGUSR1"]);
  });

  it("sends no signal that was not asked for, nor with a withdrawal", async () => {
    const { engine, done, log } = stage();
    await tellTenant(engine, { containerId: "c1" }, notice, { signal: neverAborted(), log });
    await tellTenant(engine, tenant, { ...notice, phase: "withdrawn" }, { signal: neverAborted(), log });
    expect(done).toEqual([`c1 ${NOTICE_FILE}`, `c1 ${NOTICE_FILE}`]);
  });

  it("goes on without what fails, and says so", async () => {
    const away = () => Promise.reject(new GpunodeError("engine_unavailable", "away"));
    const { engine, done, warned, log } = stage({ putFile: away });
    await tellTenant(engine, tenant, notice, { signal: neverAborted(), log });
    expect(done).toEqual(["c1 SIGUSR1"]);
    expect(warned).toEqual([expect.stringContaining("could not write the notice")]);
  });

  it("does not wait for an engine that hangs", async () => {
    const hang = () => new Promise<never>(() => undefined);
    const { engine, done, warned, log } = stage({ putFile: hang, kill: hang });
    await tellTenant(engine, tenant, notice, { signal: neverAborted(), log });
    expect(done).toEqual([]);
    expect(warned).toHaveLength(2);
  });

  it("ends with the stop it belongs to, without a word", async () => {
    const stop = new AbortController();
    const { engine, done, warned, log } = stage({ putFile: () => new Promise<never>(() => undefined) });
    const telling = tellTenant(engine, tenant, notice, { signal: stop.signal, log });
    stop.abort(new Error("a harder order"));
    await telling;
    expect([done, warned]).toEqual([[], []]);
  });
});

describe.runIf(haveEngine)("a tenant on the engine", { timeout: 60_000 }, () => {
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    engine = openEngine();
    image = await pullSmallImage(engine);
  });
  afterAll(async () => {
    await removeAll(engine);
    expect(await containersLeft(`${LABEL_NODE}=${engine.nodeId}`)).toEqual([]);
    await engine[Symbol.asyncDispose]();
  });

  const log = {
    warn: (fields: object, message: string) => {
      throw new Error(`${message} ${JSON.stringify(fields)}`);
    },
  };

  it("reads the notice when its signal comes, and its withdrawal later", async () => {
    const script = `trap 'cat ${NOTICE_FILE}' USR1; echo ready; while ! grep -q withdrawn ${NOTICE_FILE} 2>/dev/null; do sleep 0.1; done; cat ${NOTICE_FILE}`;
    const id = await engine.create(specFor(engine, image, script, { inbox: "/run/gpunode", user: "1000" }));
    await engine.start(id);
    while (!(await outputOf(engine, id)).includes("ready")) await sleep(50);
    const notice: TenantNotice = { phase: "notice", cause: "schedule", at: AT, deadline: AT + 1000 };
    const how = { signal: neverAborted(), log };
    await tellTenant(engine, { containerId: id, noticeSignal: "SIGUSR1" }, notice, how);
    while (!(await outputOf(engine, id)).includes("schedule")) await sleep(50);
    await tellTenant(engine, { containerId: id }, { phase: "withdrawn", cause: "schedule", at: AT }, how);
    expect(await engine.wait(id, AbortSignal.timeout(20_000))).toMatchObject({ exitCode: 0 });
    const [, ...lines] = (await outputOf(engine, id)).trim().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as TenantNotice).phase)).toEqual(["notice", "withdrawn"]);
    await tellTenant(engine, { containerId: id, noticeSignal: "SIGUSR1" }, notice, how);
    await engine.remove(id);
    await tellTenant(engine, { containerId: id, noticeSignal: "SIGUSR1" }, notice, how);
  });
});
