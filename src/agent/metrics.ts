import { statSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { detailsOf } from "../gpu/nvidia/details.ts";
import type { RunTally } from "../gpu/nvidia/run-tally.ts";
import type { GpuWatch } from "../gpu/watch.ts";
import { openFiles } from "../host/process.ts";
import type { Link } from "../link/link.ts";
import type { Snapshot } from "../local/snapshot.ts";
import { metricsText } from "../metrics/families.ts";
import type { ProcessFigures } from "../metrics/figures.ts";
import type { Tally } from "../metrics/tally.ts";
import type { Store } from "../store/store.ts";
import type { NodeHealth } from "./health.ts";
import type { NodeTelemetry } from "./telemetry.ts";

export interface NodeMetricsDoors {
  /** As the owner's socket tells it; looking at it asks for no sample. */
  snapshot(): Snapshot;
  telemetry: NodeTelemetry;
  health: NodeHealth;
  gpus: Pick<GpuWatch, "inventory" | "paused">;
  nvidiaSmi: RunTally;
  tally: Tally;
  store: Pick<Store, "problems">;
  /** Path of the store's file. */
  storePath: string;
  link(): Link | undefined;
}

/** What Prometheus is told when it scrapes. */
export async function nodeMetrics(doors: NodeMetricsDoors): Promise<string> {
  const { telemetry, health, gpus, nvidiaSmi, tally, store, storePath } = doors;
  await telemetry.scraped();
  const process = await processFigures();
  const { collector, pressure } = telemetry;
  const snapshot = doors.snapshot();
  const link = doors.link()?.counts();
  const bytes = bytesOf(storePath);
  const xids = health.xids();
  const { latest } = collector;
  return metricsText({
    // While sampling is paused nobody knows how the GPUs are.
    snapshot: gpus.paused ? { ...snapshot, gpus: snapshot.gpus.map(({ telemetry: _, ...gpu }) => gpu) } : snapshot,
    gpus: gpus.paused ? new Map() : detailsOf(gpus.inventory),
    ...(xids !== undefined && { xids }),
    nvidiaSmi: nvidiaSmi.figures,
    tally: tally.figures,
    ...(link !== undefined && { link }),
    pressure: { host_memory: pressure.level("host_memory"), disk: pressure.level("disk") },
    state: {
      isWritable: !store.problems.some(({ code }) => code === "state_refused"),
      ...(bytes !== undefined && { bytes }),
    },
    ...(latest !== undefined && { sampledAtMs: Date.parse(latest.at) }),
    process,
  });
}

/** With SQLite's write-ahead log; undefined where it cannot be asked. */
function bytesOf(path: string): number | undefined {
  const sizes = ["", "-wal"].flatMap((suffix) => statSync(path + suffix, { throwIfNoEntry: false })?.size ?? []);
  return sizes.length === 0 ? undefined : sizes.reduce((sum, size) => sum + size, 0);
}

async function processFigures(): Promise<ProcessFigures> {
  const asked = performance.now();
  await setImmediate();
  const eventLoopLagSeconds = (performance.now() - asked) / 1000;
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, heapTotal } = process.memoryUsage();
  const { open, most } = openFiles();
  return {
    cpuSeconds: (user + system) / 1e6,
    startTimeSeconds: performance.timeOrigin / 1000,
    residentBytes: rss,
    heapUsedBytes: heapUsed,
    heapTotalBytes: heapTotal,
    eventLoopLagSeconds,
    ...(open !== undefined && { openFds: open }),
    ...(most !== undefined && { maxFds: most }),
  };
}
