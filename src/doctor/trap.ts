import { had, type Judgement, type Missing } from "./check.ts";
import type { EngineFacts, ToolkitFacts } from "./facts.ts";

/** From Docker 29 on a GPU request is served from CDI specifications where they are there (moby/moby#50228). */
const CDI_FIRST_MAJOR = 29;

/** Whether the engine serves GPU requests from CDI specifications. */
export function servesByCdi({ about }: EngineFacts, { cdiHook, specs }: ToolkitFacts): boolean {
  const major = Number(/^(\d+)\./.exec(about?.info.version ?? "")?.[1] ?? 0);
  return major >= CDI_FIRST_MAJOR && cdiHook !== undefined && specs.length > 0;
}

/**
 * Whether a "systemctl daemon-reload", or what does one by the way (enable, mask, set-ntp), takes the GPUs away from running
 * containers: systemd sets the rules of their cgroups anew, and knows only devices that /dev/char leads to (NVIDIA/nvidia-container-toolkit#48).
 */
export function reloadTakesGpus(engine: EngineFacts, toolkit: ToolkitFacts): boolean {
  return engine.about?.cgroupDriver === "systemd" && toolkit.unlinked.length > 0 && !servesByCdi(engine, toolkit);
}

/** `--fix` makes systemd reload only where that does no harm. */
export function whereReloadIsSafe(
  auto: NonNullable<Judgement["auto"]>,
  { engine, toolkit }: { engine: EngineFacts | Missing; toolkit: ToolkitFacts | Missing },
): Judgement["auto"] {
  const [about, files] = [had(engine), had(toolkit)];
  return about !== undefined && files !== undefined && reloadTakesGpus(about, files) ? undefined : auto;
}
