import { choose } from "../placement/choose.ts";
import { misfit, type Unit, unitsOf } from "../placement/unit.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { GpuRequest } from "../protocol/workload.ts";

/**
 * Which GPUs a workload gets. Pure: the same GPUs, holders and request always give the same answer. A GPU (or a MIG
 * instance) is never given twice. Which of those that fit are taken, `placement/choose.ts` says.
 */

/** Who holds which GPU or MIG instance: uuid → workload id. */
export type Holders = ReadonlyMap<string, string>;

/**
 * UUIDs for `request`. Throws `no_matching_gpu` where no set of GPUs here could ever serve it, with the numbers
 * compared, and `gpu_busy` where they could but are held, with their holders.
 */
export function allocate(request: GpuRequest, gpus: readonly Gpu[], holders: Holders): string[] {
  if (request.count === 0) return [];
  const units = unitsOf(gpus, request);
  const refusals: string[] = [];
  const fitting = units.filter((unit) => {
    const refusal = misfit(unit, request);
    if (refusal !== undefined) refusals.push(refusal);
    return refusal === undefined;
  });
  const chosen = choose(fitting, request);
  if (chosen === undefined) throw noMatch(request, units.length, fitting.length, refusals);

  const free = fitting.filter((unit) => !isHeld(unit, holders));
  const given = choose(free, request);
  if (given !== undefined) return given.map((unit) => unit.uuid);
  const held = fitting.flatMap((unit) => holderOf(unit, holders) ?? []);
  throw new GpunodeError(
    "gpu_busy",
    `${plural(request.count, "fitting GPU")} asked for, ${free.length} of ${fitting.length} free; the others are held by ${[...new Set(held)].join(", ")}`,
    { details: { asked: request.count, free: free.length, fitting: fitting.length } },
  );
}

/** A unit is held where itself is, or where the GPU around it (or an instance within it) is. */
function isHeld(unit: Unit, holders: Holders): boolean {
  return holderOf(unit, holders) !== undefined;
}

function holderOf(unit: Unit, holders: Holders): string | undefined {
  const own = holders.get(unit.uuid) ?? holders.get(unit.gpu.uuid);
  if (own !== undefined || unit.profile !== undefined) return own;
  for (const instance of unit.gpu.mig?.instances ?? []) {
    const holder = holders.get(instance.uuid);
    if (holder !== undefined) return holder;
  }
  return undefined;
}

function noMatch(request: GpuRequest, units: number, fitting: number, refusals: readonly string[]): GpunodeError {
  const kind = request.migProfile === undefined ? "GPU" : "MIG instance";
  const details = { asked: request.count, present: units, fitting };
  if (units === 0) {
    return new GpunodeError("no_matching_gpu", `${plural(request.count, kind)} asked for, this node has none`, {
      details,
    });
  }
  const some = [...new Set(refusals)].slice(0, 3).join("; ");
  const linked = request.nvlink === true && fitting >= request.count ? " and reach each other over NVLink" : "";
  return new GpunodeError(
    "no_matching_gpu",
    `${plural(request.count, kind)} asked for, ${linked === "" ? fitting : "fewer"} of ${units} here fit${linked}${some === "" ? "" : `: ${some}`}`,
    { details },
  );
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
