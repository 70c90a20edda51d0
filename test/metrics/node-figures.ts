import { detailsOf } from "../../src/gpu/nvidia/details.ts";
import type { Inventory } from "../../src/gpu/nvidia/inventory.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import type { Figures } from "../../src/metrics/figures.ts";
import { Tally } from "../../src/metrics/tally.ts";
import type { GpuTelemetry } from "../../src/protocol/gpu.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";

/** A node of which everything is known, with what a test has to say of it. */
export function figuresOf(more: Partial<Figures> = {}): Figures {
  return {
    snapshot: exampleSnapshot(),
    gpus: new Map(),
    xids: [],
    nvidiaSmi: { exitCode: 0, failedReads: 0, lastRead: { isOk: true, durationMs: 120 }, lastOkAt: 1_767_323_000_000 },
    tally: new Tally().figures,
    link: { sessions: 1, telemetrySent: 10, telemetrySkipped: 0 },
    pressure: { host_memory: "normal", disk: "elevated" },
    state: { isWritable: true, bytes: 65_536 },
    sampledAtMs: 1_767_323_044_000,
    process: {
      cpuSeconds: 12.5,
      startTimeSeconds: 1_767_312_000,
      residentBytes: 80_000_000,
      heapUsedBytes: 20_000_000,
      heapTotalBytes: 30_000_000,
      eventLoopLagSeconds: 0.001,
      openFds: 30,
      maxFds: 1024,
    },
    ...more,
  };
}

/** A node with the GPUs of a read, and the newest samples of them. */
export function figuresOfGpus(inventory: Inventory, samples: readonly GpuTelemetry[] = inventory.samples): Figures {
  const gpus: Snapshot["gpus"] = inventory.gpus.map((gpu) => {
    const telemetry = samples.find(({ uuid }) => uuid === gpu.uuid);
    return telemetry === undefined ? gpu : { ...gpu, telemetry };
  });
  return figuresOf({ snapshot: { ...exampleSnapshot(), gpus, workloads: [] }, gpus: detailsOf(inventory) });
}
