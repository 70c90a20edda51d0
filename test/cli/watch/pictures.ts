import type { Earnings } from "../../../src/cli/watch/earnings.ts";
import type { Picture, Screen } from "../../../src/cli/watch/frame.ts";
import { frame } from "../../../src/cli/watch/frame.ts";
import { createHistory } from "../../../src/cli/watch/history.ts";
import { FIRST_VIEW, type ViewState } from "../../../src/cli/watch/keys.ts";
import { type Line, plain } from "../../../src/cli/watch/line.ts";
import { createPullPaces } from "../../../src/cli/watch/pull-pace.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../../../src/local/snapshot.ts";
import { exampleSnapshot } from "../../local/snapshot-example.ts";

/** Pictures to look at. Times are those of the example snapshot; what is clock time is shown in UTC (see `TZ` of the tests). */

export function screen(columns: number, rows: number, more: Partial<Screen> = {}): Screen {
  return { columns, rows, unicode: true, hasKeys: true, ...more };
}

export function textOf(lines: readonly Line[]): string {
  return `${lines.map(plain).join("\n")}\n`;
}

/** What a person sees. */
export function seen(picture: Picture, on: Screen, view: Partial<ViewState> = {}): string {
  return textOf(frame(picture, { ...FIRST_VIEW, ...view }, on).lines);
}

/** Ten minutes of two GPUs, the first a wave and the second idle and full; a job that has to go, one that is pulled, one that ended. */
export function busyPicture(): Picture {
  const snapshot = busySnapshot();
  const now = Date.parse(snapshot.at);
  const [history, paces] = [createHistory(), createPullPaces()];
  for (let second = 600; second >= 0; second -= 1) {
    const wave = 50 + 45 * Math.sin(second / 40);
    const [first, second_] = snapshot.gpus;
    history.add(first?.uuid ?? "", {
      at: now - second * 1000,
      utilizationPercent: wave,
      vramPercent: second > 300 ? 10 : 50,
    });
    history.add(second_?.uuid ?? "", { at: now - second * 1000, utilizationPercent: 0, vramPercent: 98 });
  }
  const earlier = snapshot.workloads.map((workload) =>
    workload.pull === undefined
      ? workload
      : { ...workload, pull: { ...workload.pull, currentBytes: workload.pull.currentBytes - 200 * 1024 * 1024 } },
  );
  paces.see({ ...snapshot, at: new Date(now - 5000).toISOString(), workloads: earlier });
  paces.see(snapshot);
  return { snapshot, now, history, paces, earnings };
}

const earnings: Earnings = {
  days: [0, 20, 40, 48, 10, 44, 6].map((hours, index) => ({
    day: `2025-12-${27 + index}`,
    gpuSeconds: hours * 3600,
    energyJoules: hours * 1_440_000,
  })),
  isVerified: true,
};

function busySnapshot(): Snapshot {
  const snapshot = exampleSnapshot();
  const [first, second] = snapshot.gpus as [GpuStatus, GpuStatus];
  const [train, bad] = snapshot.workloads as [WorkloadStatus, WorkloadStatus];
  const telemetry = { utilizationPercent: 0, vramUsedMiB: 80_000, powerWatts: 100, temperatureCelsius: 30 };
  const processes = [{ pid: 4711, vramUsedMiB: 3000 }];
  const { usage: _, since: __, ...young } = train;
  return {
    ...snapshot,
    gpus: [first, { ...second, telemetry: { uuid: second.uuid, ...telemetry, pressure: "critical", processes } }],
    holds: [
      {
        cause: "owner",
        message: "taken back by its owner",
        gpus: [first.uuid],
        since: snapshot.at,
        until: "2026-01-02T05:04:05.000Z",
      },
    ],
    reliability: {
      since: "2025-12-20T00:00:00.000Z",
      upSeconds: 1_000_000,
      downSeconds: 1000,
      workloads: { succeeded: 12, failed: 1, stopped: 0, preempted: 3, lost: 0 },
      preemptions: [],
    },
    workloads: [
      {
        ...train,
        state: "stopping",
        notice: { cause: "owner", message: "taken back by its owner", deadline: "2026-01-02T03:04:42.500Z" },
      },
      {
        ...young,
        ...{ id: "infer", state: "pulling", gpus: [], ports: [], restarts: 0, acceptedAt: "2026-01-02T03:00:00.000Z" },
        pull: { currentBytes: 13 * 1024 ** 3, totalBytes: 23 * 1024 ** 3 },
      },
      { ...bad, finishedAt: bad.since ?? "" },
    ],
  };
}

/** Eight GPUs and fifteen workloads, ten of them at work. */
export function crowdedPicture(): Picture {
  const picture = busyPicture();
  const [gpu] = picture.snapshot.gpus as [GpuStatus];
  const [train] = exampleSnapshot().workloads as [WorkloadStatus];
  const gpus = Array.from({ length: 8 }, (_, index) => ({
    ...gpu,
    index,
    uuid: `GPU-${index}`,
    allocatedTo: `job-${index}`,
  }));
  const workloads = Array.from({ length: 15 }, (_, index): WorkloadStatus => {
    const job = { ...train, id: `job-${index}`, gpus: index < 8 ? [`GPU-${index}`] : [] };
    return index < 10 ? job : { ...job, state: "succeeded", finishedAt: `2026-01-02T02:${30 + index}:00.000Z` };
  });
  return { ...picture, snapshot: { ...picture.snapshot, gpus, workloads, holds: [], problems: [] } };
}
