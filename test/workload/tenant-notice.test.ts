import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Workload, type WorkloadInput } from "../../src/protocol/workload.ts";
import { admit } from "../../src/workload/admit.ts";
import type { SmallFile } from "../../src/workload/needs.ts";
import { LABEL_NODE } from "../../src/workload/needs.ts";
import type { StopOrder } from "../../src/workload/record.ts";
import { NOTICE_FILE, noticeOf, noticeText, type TenantNotice, tellTenant } from "../../src/workload/tenant-notice.ts";
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

describe("the deadline a tenant is told", () => {
  // The wall clock was set back by an hour since the boot.
  const clocks = { now: () => AT, steady: () => AT + 3_600_000 };
  const order = (changes: Partial<StopOrder> = {}): StopOrder => ({
    outcome: "preempted",
    reason: "owner",
    graceSeconds: 10,
    preemption: { cause: "owner" },
    ...changes,
  });
  const checkpoint = { exec: ["save"], timeoutSeconds: 60 };

  it("is that of the order, by the wall clock", () => {
    const stop = order({ killAt: clocks.steady() + 5000, message: "now" });
    expect(noticeOf({ spec: specOf({ stop: { checkpoint } }), stop }, clocks)).toEqual({
      phase: "notice",
      cause: "owner",
      message: "now",
      at: AT,
      deadline: AT + 5000,
    });
  });

  it("is never in the past", () => {
    const stop = order({ killAt: clocks.steady() - 5000 });
    expect(noticeOf({ spec: specOf(), stop }, clocks)?.deadline).toBe(AT);
  });

  it("is the time of checkpoint and grace where the order has no end", () => {
    expect(noticeOf({ spec: specOf(), stop: order() }, clocks)?.deadline).toBe(AT + 10_000);
    expect(noticeOf({ spec: specOf({ stop: { checkpoint } }), stop: order() }, clocks)?.deadline).toBe(AT + 70_000);
  });

  it("is none for a stop that takes no GPU back", () => {
    const { preemption: _, ...stop } = order({ outcome: "stopped", reason: "released" });
    expect(noticeOf({ spec: specOf(), stop }, clocks)).toBeUndefined();
    expect(noticeOf({ spec: specOf() }, clocks)).toBeUndefined();
  });
});

describe("a cache where the notice comes", () => {
  const node = {
    gpus: [],
    holders: new Map(),
    draining: false,
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
    },
  };
  const admitted = (path: string) =>
    admit(Workload.parse({ id: "w", generation: 1, image: "a:1", caches: [{ name: "c", path }] }), node);

  it.each(["/run/gpunode", "/run/gpunode/", "//run/./gpunode"])("is refused: %s", (path) => {
    expect(() => admitted(path)).toThrow(/cache "c" cannot be at \/run\/gpunode/);
  });

  it.each(["/run", "/run/gpunode2", "/data"])("is not %s", (path) => {
    expect(admitted(path)).toEqual({ gpus: [] });
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
