import type { Policy } from "./admit.ts";
import type { Limits } from "./limits.ts";
import { type ContainerSpec, LABEL_GENERATION, LABEL_NODE, LABEL_WORKLOAD } from "./needs.ts";
import type { Secrets } from "./record.ts";
import { containerName, type WorkloadRecord } from "./record.ts";
import { INBOX, NOTICE_FILE, NOTICE_VARIABLE } from "./tenant-notice.ts";

/** What the container of a record is made from. Pure, but for the secrets it carries into the environment. */
export function containerSpec(
  record: WorkloadRecord,
  secrets: Secrets | undefined,
  node: { policy: Policy; nodeId: string; limits: Limits; network?: string },
): ContainerSpec {
  const { spec } = record;
  const { cpus, memoryMiB, shmMiB, pids, diskMiB } = node.limits;
  const { runtime, hostIp, readOnlyRoot } = node.policy;
  return {
    name: containerName(record, node.nodeId),
    labels: ownLabels(record, node.nodeId),
    image: record.imageId ?? spec.image,
    ...(spec.entrypoint !== undefined && { entrypoint: spec.entrypoint }),
    ...(spec.command !== undefined && { command: spec.command }),
    // Ours last: a variable that names another file would only lead the tenant astray.
    env: { ...spec.env, ...secrets?.secretEnv, [NOTICE_VARIABLE]: NOTICE_FILE },
    ...(spec.workdir !== undefined && { workdir: spec.workdir }),
    ...(spec.user !== undefined && { user: spec.user }),
    gpus: record.gpus,
    ...{ cpus, memoryMiB, shmMiB, pids, diskMiB },
    // Memory that was promised is kept for whom it was promised to.
    ...(spec.resources.memoryMiB === undefined && { memoryIsUnpromised: true }),
    ...((readOnlyRoot === true || spec.readOnlyRoot === true) && { readOnlyRoot: true }),
    ports: record.ports,
    hostIp,
    volumes: spec.caches.map(({ name, path }) => ({ name: cacheVolume(record, name), path })),
    inbox: INBOX,
    ...(runtime !== undefined && { runtime }),
    ...(node.network !== undefined && { network: node.network }),
    stopSignal: spec.stop.signal,
  };
}

/** What a workload's container and network are found again by. */
export function ownLabels({ id, generation }: WorkloadRecord, nodeId: string): Record<string, string> {
  return { [LABEL_NODE]: nodeId, [LABEL_WORKLOAD]: id, [LABEL_GENERATION]: String(generation) };
}

/** Name of a cache's volume. Kind and length of the owner's name keep two owners, or an owner and a workload, apart. */
function cacheVolume({ id, spec }: WorkloadRecord, cache: string): string {
  const [kind, whose] = spec.owner === undefined ? ["workload", id] : ["owner", spec.owner];
  return `gpunode-cache-${kind}-${whose.length}-${whose}-${cache}`;
}
