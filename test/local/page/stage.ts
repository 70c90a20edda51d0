import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PAST_JOBS, writePast } from "../../../scripts/past-day.ts";
import { nodePage } from "../../../src/agent/page.ts";
import { presets } from "../../../src/gpu/simulator/presets.ts";
import { parseScenario } from "../../../src/gpu/simulator/scenario.ts";
import { loadIdentity } from "../../../src/link/identity.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../../../src/local/snapshot.ts";
import { openStore } from "../../../src/store/store.ts";
import { History } from "../../../src/telemetry/history.ts";

const HOUR_MS = 3_600_000;

/** The page as the daemon serves it, of a node the test makes up: with states that are hard to bring about. */
export interface Stage extends AsyncDisposable {
  url: string;
  /** What the node is like at the next look. */
  snapshot: Snapshot;
  /** How often it was looked at. */
  looks: number;
}

/** With a day behind it, written into a real store by the code that writes it. */
export async function stage(): Promise<Stage> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-page-"));
  const store = openStore({ path: join(dir, "state.db") });
  const identity = loadIdentity(join(dir, "identity.pem"));
  const scenario = parseScenario(presets.rtx4090x2);
  const nowMs = Date.now();
  writePast({ store, scenario, jobs: PAST_JOBS, nowMs, sign: identity.sign });
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const history = new History({ memory: store.history, now: Date.now, log });
  const over = new AbortController();
  const show: Stage = {
    url: "",
    snapshot: node(),
    looks: 0,
    async [Symbol.asyncDispose]() {
      over.abort();
      await page?.[Symbol.asyncDispose]();
      history[Symbol.dispose]();
      await store[Symbol.asyncDispose]();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  const page = await nodePage({
    config: { metrics: { listen: { host: "127.0.0.1", port: 0 } } },
    identity,
    store,
    history,
    snapshot: async () => {
      show.looks += 1;
      return { ...show.snapshot, at: new Date().toISOString() };
    },
    metrics: async () => "",
    signal: over.signal,
    log: log as never,
  });
  show.url = page?.url ?? "";
  return show;
}

/** UUIDs of the GPUs that have a past. */
export const UUIDS: readonly string[] = parseScenario(presets.rtx4090x2).gpus.map(({ uuid }) => uuid);

/** `hours` ago, RFC 3339. */
export function ago(hours: number): string {
  return new Date(Date.now() - hours * HOUR_MS).toISOString();
}

export function gpu(index: number, changes: Partial<GpuStatus> = {}): GpuStatus {
  const uuid = UUIDS[index] ?? `GPU-00000000-0000-0000-0000-${String(index).padStart(12, "0")}`;
  return {
    index,
    uuid,
    vendor: "nvidia",
    name: "NVIDIA GeForce RTX 4090",
    vramMiB: 24_564,
    powerLimitWatts: 450,
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    telemetry: {
      uuid,
      utilizationPercent: 97,
      vramUsedMiB: 18_200,
      vramTotalMiB: 24_564,
      powerWatts: 415,
      temperatureCelsius: 67,
      pressure: "normal",
    },
    ...changes,
  };
}

export function workload(id: string, changes: Partial<WorkloadStatus> = {}): WorkloadStatus {
  return {
    id,
    generation: 1,
    state: "running",
    image: "ghcr.io/acme/train:2.4",
    gpus: [],
    ports: [],
    restarts: 0,
    acceptedAt: ago(2.1),
    startedAt: ago(2),
    since: ago(2),
    ...changes,
  };
}

export function node(changes: Partial<Snapshot> = {}): Snapshot {
  return {
    snapshotVersion: 1,
    at: ago(0),
    node: {
      id: "abcdefghijklmnopqrstuvwx23",
      name: "rig-01",
      labels: {},
      version: "0.1.0",
      pid: 4711,
      startedAt: ago(30),
      uptimeSeconds: 30 * 3600,
      state: "available",
    },
    connection: { state: "off", since: ago(30), unackedEvents: 0 },
    gpus: [gpu(0, { allocatedTo: "train" }), gpu(1)],
    holds: [],
    host: {
      info: { hostname: "rig-01", architecture: "amd64", cpuModel: "AMD Ryzen 9 7950X", cpus: 32, memoryMiB: 64_000 },
      telemetry: { cpuPercent: 34, memoryUsedMiB: 14_600, memoryTotalMiB: 64_000, diskFreeMiB: 812_000 },
    },
    engine: { kind: "docker", available: true, version: "27.3.1" },
    workloads: [workload("train", { gpus: [UUIDS[0] ?? ""], usage: { cpuPercent: 412, memoryMiB: 9_100 } })],
    problems: [],
    ...changes,
  };
}
