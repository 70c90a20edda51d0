import type { WorkloadWithEvents } from "../coordinator/client.ts";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";

/** "2 × NVIDIA GeForce RTX 4090 (24,564 MiB, compute capability 8.9, fp16 bf16 …)". */
export function gpusInWords(gpus: readonly Gpu[]): string {
  const [first] = gpus;
  if (first === undefined) return "no GPU";
  const facts = [
    first.vramMiB === undefined ? [] : `${number(first.vramMiB)} MiB`,
    first.computeCapability === undefined ? [] : `compute capability ${first.computeCapability}`,
    first.tensorCores?.precisions.join(" ") ?? [],
  ].flat();
  return `${gpus.length} × ${first.name} (${facts.join(", ")})`;
}

/** One line for a state a job has come into. */
export function jobLine(view: WorkloadWithEvents): string {
  const { id, state, progress, gpus, message } = view;
  const more =
    state === "pulling" && progress !== undefined && progress.totalBytes > 0
      ? `${mib(progress.currentBytes)} of ${mib(progress.totalBytes)} MiB`
      : state === "running" && gpus.length > 0
        ? `on ${gpus.join(", ")}`
        : (message ?? "");
  return `${time()}  ${id.padEnd(6)} ${state.padEnd(9)} ${more}`.trimEnd();
}

/** One line for a GPU's newest sample. */
export function telemetryLine(index: number, sample: GpuTelemetry, holder: string | undefined): string {
  const { utilizationPercent, vramUsedMiB, powerWatts, temperatureCelsius } = sample;
  const figures = [
    `${utilizationPercent ?? "?"} %`.padStart(6),
    `${vramUsedMiB === undefined ? "?" : number(vramUsedMiB)} MiB`.padStart(11),
    `${powerWatts === undefined ? "?" : Math.round(powerWatts)} W`.padStart(6),
    `${temperatureCelsius ?? "?"} °C`.padStart(6),
  ];
  return `${time()}  GPU ${index} ${figures.join(" ")}${holder === undefined ? "" : `   ← ${holder}`}`;
}

/** What happened, a line for each job. */
export function summary(jobs: readonly WorkloadWithEvents[]): string[] {
  return jobs.map((job) => {
    const path = job.events.flatMap((event) => (event.kind === "workload" ? String(event.state) : []));
    const timings = job.events.findLast((event) => event.timings !== undefined)?.timings as
      | { pullMs?: number; createMs?: number; startMs?: number }
      | undefined;
    const took = Object.entries(timings ?? {}).map(([name, ms]) => `${name.replace("Ms", "")} ${ms} ms`);
    return `${job.id.padEnd(6)} ${path.join(" → ")}   (${took.join(", ")})`;
  });
}

function time(): string {
  return new Date().toTimeString().slice(0, 8);
}

function mib(bytes: number): string {
  return (bytes / 1024 / 1024).toFixed(1);
}

function number(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}
