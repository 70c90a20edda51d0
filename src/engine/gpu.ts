import type Docker from "dockerode";
import { GpunodeError } from "../protocol/errors.ts";
import type { DeviceRequest } from "./answers.ts";

/**
 * How GPUs get into a container: exactly those of the spec, by UUID, and none otherwise.
 *
 * The Docker engine's own way is a device request to its driver `nvidia`, which the NVIDIA container toolkit fills. Engines
 * with CDI take a device request to the driver `cdi` with names such as `nvidia.com/gpu=GPU-…`; reading what an engine
 * recorded understands both already, so that only `deviceRequests` has to choose.
 */

/** Where the NVIDIA runtime is the engine's default it reads this variable, also from the image: CUDA images say `all`. */
const VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES";

/** Variables by which a container can ask the NVIDIA runtime for devices it was not given. */
const ASKING_FOR_DEVICES = new Set([
  VISIBLE_DEVICES,
  "NVIDIA_MIG_CONFIG_DEVICES",
  "NVIDIA_MIG_MONITOR_DEVICES",
  "NVIDIA_IMEX_CHANNELS",
]);

const CDI_PREFIX = /^nvidia\.com\/gpu=/;

/** What the engine is asked for; [] where the spec has no GPU. */
export function deviceRequests(gpus: readonly string[]): Docker.DeviceRequest[] {
  // `Count` together with `DeviceIDs` is refused by the engine.
  return gpus.length === 0 ? [] : [{ Driver: "nvidia", DeviceIDs: [...gpus], Capabilities: [["gpu"]] }];
}

/** The environment, with what a workload may not ask for replaced by what it was given. */
export function gpuEnvironment<T>(
  env: Readonly<Record<string, T>>,
  gpus: readonly string[],
): Record<string, T | string> {
  const kept = Object.entries(env).filter(([name]) => !ASKING_FOR_DEVICES.has(name));
  // `void` is the toolkit's word for "as if there were no NVIDIA runtime".
  return { ...Object.fromEntries(kept), [VISIBLE_DEVICES]: gpus.length === 0 ? "void" : gpus.join(",") };
}

/** UUIDs asked for, as the engine recorded them. */
export function recordedGpus(requests: readonly DeviceRequest[]): string[] {
  return requests.flatMap(({ DeviceIDs }) => DeviceIDs.map((id) => id.replace(CDI_PREFIX, "")));
}

/**
 * Throws `unsupported` where the engine has not recorded exactly the GPUs it was asked for. Podman's Docker-compatible
 * API takes a device request without a word and forgets it: the workload would run without its GPU.
 */
export function requireRecorded(wanted: readonly string[], recorded: readonly string[], name: string): void {
  const same = wanted.length === recorded.length && wanted.every((uuid) => recorded.includes(uuid));
  if (same) return;
  throw new GpunodeError(
    "unsupported",
    `the container engine ignored the GPU request of ${name}: asked for ${wanted.join(", ") || "none"}, it recorded ` +
      `${recorded.join(", ") || "none"}. Podman's Docker-compatible API does that; use Docker Engine`,
    { details: { reason: "gpu_request_ignored", wanted: [...wanted], recorded: [...recorded] } },
  );
}
