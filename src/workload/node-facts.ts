import type { Gpu } from "../protocol/gpu.ts";
import type { NodeFacts, Policy } from "./admit.ts";
import type { WorkloadNetworks } from "./needs.ts";
import type { Runner } from "./runner.ts";
import { isTerminal } from "./state.ts";
import { holdersOf } from "./who-holds.ts";

export interface NodeFactsDoors {
  policy: Policy;
  host: { architecture: string; cpus: number; memoryMiB: number };
  gpus(): readonly Gpu[];
  /** What is kept from being lent, and why: the whole node, or boards by UUID. */
  held(): { node?: string; gpus: ReadonlyMap<string, string> };
  /** Why the engine can't be used; undefined where it can. */
  engineProblem(): string | undefined;
  /** What the engine lacks that no workload may be without; undefined where it has all. */
  engineLacks?(): string | undefined;
  diskFreeMiB(): number | undefined;
  /** Absent where workloads are on the engine's default bridge. */
  networks?: WorkloadNetworks;
}

/** What the machine has to lend beside its GPUs, as far as it is known now. */
export function lendable({ policy, host, diskFreeMiB }: NodeFactsDoors) {
  const disk = diskFreeMiB();
  const { cpus, memoryMiB } = host;
  return { policy, cpus, memoryMiB, ...(disk !== undefined && { diskFreeMiB: disk }) };
}

/** How the node stands now, for the decision whether it takes the workload `id`: what an earlier generation of it holds is free for it. */
export function nodeFacts(id: string, runners: readonly Runner[], doors: NodeFactsDoors): NodeFacts {
  const { gpus, engineProblem, engineLacks, networks } = doors;
  const problem = engineProblem();
  const isolationProblem = networks?.problem();
  const lacks = engineLacks?.();
  const held = doors.held();
  return {
    gpus: gpus(),
    holders: new Map([...holdersOf(runners, id), ...held.gpus]),
    kept: held.gpus,
    ...lendable(doors),
    ...(held.node !== undefined && { heldBack: held.node }),
    ...(problem !== undefined && { engineProblem: problem }),
    ...(lacks !== undefined && { engineLacks: lacks }),
    ...(isolationProblem !== undefined && { isolationProblem }),
    live: runners
      .map((runner) => runner.record)
      .filter((record) => !isTerminal(record.state) && record.stop === undefined && record.id !== id)
      .map(({ id: other, spec }) => ({
        id: other,
        memoryMiB: spec.resources.memoryMiB ?? 0,
        ports: spec.ports.length,
      })),
  };
}
