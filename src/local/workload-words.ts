import { whoIn } from "./hold-words.ts";
import { between, mib } from "./in-words.ts";
import type { GpuStatus, WorkloadStatus } from "./snapshot.ts";

/** What a snapshot says of workloads and of the GPUs they are on, in words: for a terminal and for the page. */

/** The index of a GPU, as the table of GPUs shows it; a MIG instance as index and profile: "0", "0:3g.20gb". */
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

/** Why a workload has to go. */
export function noticeReason({ cause, message }: NonNullable<WorkloadStatus["notice"]>): string {
  return message ?? whoIn(cause);
}

/** "gone in 38 s: taken back by its owner". */
export function noticeInWords(notice: NonNullable<WorkloadStatus["notice"]>, at: string): string {
  const { deadline } = notice;
  const why = noticeReason(notice);
  return deadline === undefined ? `warned: ${why}` : `gone in ${between(at, deadline)}: ${why}`;
}

/** "56 % of 25 MiB pulled". */
export function pulledInWords({ currentBytes, totalBytes }: NonNullable<WorkloadStatus["pull"]>): string {
  if (totalBytes === 0) return `${mib(currentBytes / 1024 / 1024)} pulled`;
  return `${Math.floor((100 * currentBytes) / totalBytes)} % of ${mib(totalBytes / 1024 / 1024)} pulled`;
}

/** What there is to say of a workload beside its state, its pull and its notice. */
export function remarksOn({
  state,
  reason,
  message,
  exitCode,
  oomKilled,
  restarts,
  ports,
  healthy,
  notice,
}: WorkloadStatus): string[] {
  const why = message ?? reason;
  return [
    ...(why === undefined || why === notice?.message ? [] : [why]),
    ...(oomKilled === true ? ["out of memory"] : []),
    // "exited with code 3" says it already.
    ...(exitCode === undefined || exitCode === 0 || why?.includes(`code ${exitCode}`) ? [] : [`exit code ${exitCode}`]),
    ...(restarts === 0 ? [] : [`restarted ${restarts} ×`]),
    ...(healthy === false && state === "running" ? ["not healthy"] : []),
    ...(state === "running" ? ports.map(({ container, host }) => `${host}→${container}`) : []),
  ];
}
