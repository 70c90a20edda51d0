import { GpunodeError } from "../protocol/errors.ts";
import type { RegistryAuth } from "../protocol/workload.ts";
import { isImageReference, matchesPattern, type Policy } from "./admit.ts";
import type { Engine } from "./needs.ts";

/**
 * Pulls an image ahead of need; resolves when it is there. Throws `invalid_spec` or `image_not_allowed` before the pull,
 * `pull_failed` or `engine_unavailable` from it.
 */
export async function prefetch(
  { image, registryAuth }: { image: string; registryAuth?: RegistryAuth },
  engine: Engine,
  policy: Policy,
  signal: AbortSignal,
): Promise<void> {
  requireImage(image, policy);
  await engine.pull(image, {
    ...(registryAuth !== undefined && { auth: registryAuth }),
    noProgressMs: policy.pullNoProgressMs,
    onProgress: () => undefined,
    signal,
  });
}

/** Throws `invalid_spec` where it names no image, `image_not_allowed` where the provider's patterns leave it out. */
export function requireImage(image: string, policy: Pick<Policy, "images">): void {
  if (!isImageReference(image)) {
    throw new GpunodeError("invalid_spec", `"${image}" is no image reference; expected "repo:tag" or "repo@sha256:…"`);
  }
  if (policy.images.some((pattern) => matchesPattern(image, pattern))) return;
  const allowed = policy.images.length === 0 ? "no image" : policy.images.join(", ");
  throw new GpunodeError("image_not_allowed", `policy.images allows ${allowed}; ${image} is not among them`);
}
