import { holdOn, whoIn } from "../hold-words.ts";
import { between, mib } from "../in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../snapshot.ts";

/** "14:05" by this browser's clock. */
export function timeOfDay(ms: number): string {
  const at = new Date(ms);
  return `${String(at.getHours()).padStart(2, "0")}:${String(at.getMinutes()).padStart(2, "0")}`;
}

/** "last 6 hours", "last hour". */
export function lastHours(hours: number): string {
  return hours === 1 ? "last hour" : `last ${hours} hours`;
}

/** The GPU a workload is on as the cards name it: "0", or "0:3g.20gb" of a MIG instance. */
export function shortGpu(uuid: string, gpus: readonly GpuStatus[]): string {
  for (const gpu of gpus) {
    if (gpu.uuid === uuid) return String(gpu.index);
    const instance = gpu.mig?.instances.find((candidate) => candidate.uuid === uuid);
    if (instance !== undefined) return `${gpu.index}:${instance.profile}`;
  }
  return uuid.slice(0, 12);
}

/** A GPU and its MIG instances. */
export function unitsOf({ uuid, mig }: Pick<GpuStatus, "uuid" | "mig">): string[] {
  return [uuid, ...(mig?.instances ?? []).map((instance) => instance.uuid)];
}

/** Workloads that are on a GPU now. */
export function usersOf(gpu: GpuStatus, workloads: readonly WorkloadStatus[]): WorkloadStatus[] {
  const units = unitsOf(gpu);
  return workloads.filter(
    ({ finishedAt, gpus }) => finishedAt === undefined && gpus.some((uuid) => units.includes(uuid)),
  );
}

/** Why nobody is given a GPU that nobody uses; undefined where somebody may be. */
export function heldBack(gpu: GpuStatus, { holds }: Pick<Snapshot, "holds">): string | undefined {
  if (holdOn(gpu.uuid, holds) !== undefined) return undefined;
  return gpu.allocatable ? undefined : "not given out";
}

/** "gone in 38 s: taken back by its owner". */
export function noticeInWords({ cause, message, deadline }: NonNullable<WorkloadStatus["notice"]>, at: string): string {
  const why = message ?? whoIn(cause);
  return deadline === undefined ? `warned: ${why}` : `gone in ${between(at, deadline)}: ${why}`;
}

/** "56 % of 25 MiB pulled". */
export function pulledInWords({ currentBytes, totalBytes }: NonNullable<WorkloadStatus["pull"]>): string {
  if (totalBytes === 0) return `${mib(currentBytes / 1024 / 1024)} pulled`;
  return `${Math.floor((100 * currentBytes) / totalBytes)} % of ${mib(totalBytes / 1024 / 1024)} pulled`;
}

/** What else is to say of a workload. */
export function remark(workload: WorkloadStatus): string {
  const { state, reason, message, exitCode, oomKilled, restarts, ports, healthy, notice } = workload;
  const why = message ?? reason;
  return [
    ...(why === undefined || why === notice?.message ? [] : [why]),
    ...(oomKilled === true ? ["out of memory"] : []),
    // "exited with code 3" says it already.
    ...(exitCode === undefined || exitCode === 0 || why?.includes(`code ${exitCode}`) ? [] : [`exit code ${exitCode}`]),
    ...(restarts === 0 ? [] : [`restarted ${restarts} ×`]),
    ...(healthy === false && state === "running" ? ["not healthy"] : []),
    ...(state === "running" ? ports.map(({ container, host }) => `${host}→${container}`) : []),
  ].join(", ");
}
