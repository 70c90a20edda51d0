// A day and a week in the life of a simulated node, written into a store by the code that would have written them: the simulator's own
// model tells what the GPUs did. The pictures of the page are taken with it (scripts/screenshots.ts), and its tests look at it.
import { type Load, percentAt } from "../src/gpu/simulator/load.ts";
import type { Scenario } from "../src/gpu/simulator/scenario.ts";
import { fraction } from "../src/gpu/simulator/seed.ts";
import { sample } from "../src/gpu/simulator/state.ts";
import type { EventBody } from "../src/protocol/event.ts";
import { signUsage } from "../src/protocol/usage.ts";
import type { Store } from "../src/store/store.ts";
import { History } from "../src/telemetry/history.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const STEP_MS = 10_000;
const SAVE_MS = 60_000;

/** Work of the past, by hours ago. */
export interface PastJob {
  id: string;
  /** Index of its GPU. */
  gpu: number;
  fromHours: number;
  toHours: number;
  load: Load;
  vramUsedMiB: number;
}

const training: Load = { kind: "wave", minPercent: 88, maxPercent: 99, periodMs: 11 * 60_000 };
const serving: Load = { kind: "wave", minPercent: 8, maxPercent: 74, periodMs: 3.3 * HOUR_MS };
const evaluating: Load = { kind: "wave", minPercent: 35, maxPercent: 92, periodMs: 17 * 60_000 };

/** What two GPUs did; the owner had the first one for himself in the evening. */
export const PAST_JOBS: readonly PastJob[] = [
  { id: "llama-finetune", gpu: 0, fromHours: 23.8, toHours: 15.2, load: training, vramUsedMiB: 21_400 },
  { id: "eval-suite", gpu: 0, fromHours: 11.4, toHours: 9.9, load: evaluating, vramUsedMiB: 9_800 },
  { id: "sdxl-lora", gpu: 0, fromHours: 9.6, toHours: 3.1, load: training, vramUsedMiB: 17_200 },
  { id: "search-api", gpu: 1, fromHours: 30, toHours: 6.2, load: serving, vramUsedMiB: 13_900 },
  { id: "whisper-batch", gpu: 1, fromHours: 5.6, toHours: 2.4, load: evaluating, vramUsedMiB: 6_300 },
];

/** Work that goes on. */
export const RUNNING_JOBS: readonly (Omit<PastJob, "toHours"> & { image: string })[] = [
  { id: "mistral-dpo", gpu: 0, fromHours: 2.9, load: training, vramUsedMiB: 20_100, image: "acme/train:2.4" },
  { id: "chat-api", gpu: 1, fromHours: 2.2, load: serving, vramUsedMiB: 13_900, image: "acme/vllm:0.7" },
];

export interface PastOptions {
  store: Store;
  scenario: Scenario;
  jobs: readonly PastJob[];
  /** What they did since they began; that they did is for the daemon to say. */
  running?: readonly Omit<PastJob, "toHours">[];
  /** When the past ends, milliseconds since the epoch. */
  nowMs: number;
  sign(bytes: Uint8Array): Buffer;
}

/** Writes 24 hours of history up to `nowMs`, a week of usage records, and 30 days of being reliable. */
export function writePast({ store, scenario, jobs, running = [], nowMs, sign }: PastOptions): void {
  const uuids = scenario.gpus.map(({ uuid }) => uuid);
  writeDay({ store, scenario, jobs, running, nowMs });
  for (let day = 7; day > 0; day--) {
    store.append(
      jobs.flatMap((job, at) =>
        // Some days are busier than others.
        fraction(`${day}/${job.id}`) < 0.25 && day > 1
          ? []
          : usageOf(job, at, { day, nowMs, gpu: uuids[job.gpu] ?? "", sign }),
      ),
    );
  }
  store.set("reliability", JSON.stringify(reliable(nowMs)));
}

function writeDay({ store, scenario, jobs, running, nowMs }: Required<Omit<PastOptions, "sign">>): void {
  const clock = { ms: 0 };
  using history = new History({ memory: store.history, now: () => clock.ms, log: { debug: () => undefined } });
  const startMs = nowMs - DAY_MS;
  const network = { rx: 0, tx: 0 };
  for (clock.ms = startMs; clock.ms < nowMs; clock.ms += STEP_MS) {
    // The node was away for its updates.
    if (isWithin(clock.ms, nowMs, 13.1, 12.7)) continue;
    const busy = [...jobs, ...running.map((job) => ({ ...job, toHours: -1 }))].filter((job) =>
      isWithin(clock.ms, nowMs, job.fromHours, job.toHours),
    );
    const fileLoads = new Map(
      busy.map(({ gpu, load, vramUsedMiB, id }) => {
        const jitter = (fraction(`${id}/${Math.floor(clock.ms / 30_000)}`) - 0.5) * 12;
        const utilizationPercent = Math.min(100, Math.max(0, percentAt(load, clock.ms) + jitter));
        return [String(gpu), { utilizationPercent, vramUsedMiB, processes: [] }] as const;
      }),
    );
    network.rx += (2 + busy.length * 9 * fraction(`rx${Math.floor(clock.ms / 600_000)}`)) * 1e6;
    network.tx += (1 + busy.length * 3 * fraction(`tx${Math.floor(clock.ms / 600_000)}`)) * 1e6;
    history.sampled({
      at: new Date(clock.ms).toISOString(),
      gpus: sample(scenario, { elapsedMs: clock.ms - startMs, faults: [], fileLoads }).map((state) => ({
        uuid: state.gpu.uuid,
        utilizationPercent: state.utilizationPercent,
        vramUsedMiB: state.vramUsedMiB,
        powerWatts: state.watts,
        temperatureCelsius: state.celsius,
      })),
      host: {
        cpuPercent: 4 + busy.length * 13 + 6 * fraction(`cpu${Math.floor(clock.ms / 60_000)}`),
        memoryUsedMiB: Math.round(4_000 + busy.length * 5_200),
        networkRxBytes: Math.round(network.rx),
        networkTxBytes: Math.round(network.tx),
      },
    });
    if (clock.ms % SAVE_MS < STEP_MS) history.save();
  }
  for (const job of jobs) {
    const startedAt = nowMs - job.fromHours * HOUR_MS;
    const gpus = [scenario.gpus[job.gpu]?.uuid ?? ""];
    history.workload({ id: job.id, generation: 1, gpus, startedAt, finishedAt: nowMs - job.toHours * HOUR_MS });
  }
  const first = scenario.gpus[0]?.uuid ?? "";
  history.happened(
    [
      { hoursAgo: 15.2, of: taken("llama-finetune", first) },
      { hoursAgo: 12.7, of: { kind: "node", state: "started", reason: "gpunode 0.1.0" } as const },
    ].map(({ hoursAgo, of }, at) => ({ ...of, seq: at + 1, at: new Date(nowMs - hoursAgo * HOUR_MS).toISOString() })),
  );
}

function taken(workload: string, gpu: string): Extract<EventBody, { kind: "preemption" }> {
  const message = "taken back by its owner";
  return { kind: "preemption", phase: "notice", cause: "owner", workloads: [workload], gpus: [gpu], message };
}

function isWithin(ms: number, nowMs: number, fromHours: number, toHours: number): boolean {
  return ms >= nowMs - fromHours * HOUR_MS && ms < nowMs - toHours * HOUR_MS;
}

/** Hourly records of a job as it ran on a day, the last one final. */
function usageOf(
  job: PastJob,
  at: number,
  { day, nowMs, gpu, sign }: { day: number; nowMs: number; gpu: string; sign(bytes: Uint8Array): Buffer },
): EventBody[] {
  const fromMs = nowMs - (day - 1) * DAY_MS - Math.min(24, job.fromHours) * HOUR_MS;
  const hours = Math.max(1, Math.round(Math.min(24, job.fromHours) - job.toHours));
  return Array.from({ length: hours }, (_, hour) => {
    const [from, to] = [fromMs + hour * HOUR_MS, fromMs + (hour + 1) * HOUR_MS];
    const percent = percentAt(job.load, from);
    return signUsage(
      {
        kind: "usage",
        workload: `${job.id}-${day}${at}`,
        generation: 1,
        from: new Date(from).toISOString(),
        to: new Date(to).toISOString(),
        gpus: [gpu],
        gpuSeconds: 3600,
        gpuUtilizationMeanPercent: percent,
        vramPeakMiB: job.vramUsedMiB,
        energyJoules: (60 + 3.6 * percent) * 3600,
        observedSeconds: 3600,
        final: hour === hours - 1,
      },
      sign,
    );
  });
}

/** As the record of reliability lies in the store. */
function reliable(nowMs: number) {
  const today = Math.floor(nowMs / DAY_MS);
  return {
    at: nowMs,
    since: (today - 29) * DAY_MS,
    seen: { bootId: "", uptimeMs: 0, wallMs: nowMs },
    days: Array.from({ length: 30 }, (_, at) => ({
      day: today - 29 + at,
      upMs: (at === 29 ? nowMs - today * DAY_MS : DAY_MS) - (at === 21 ? 1_440_000 : 0),
      downMs: at === 21 ? 1_440_000 : 0,
      ends: {
        succeeded: 1 + (at % 3),
        failed: at % 17 === 3 ? 1 : 0,
        stopped: 0,
        preempted: at % 11 === 5 ? 1 : 0,
        lost: 0,
      },
      preemptions: {},
    })),
  };
}
