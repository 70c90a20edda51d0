import { Secret } from "../protocol/secret.ts";
import type { RegistryAuth } from "../protocol/workload.ts";
import { type Policy, requireImage } from "./admit.ts";
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
    ...(registryAuth !== undefined && { auth: new Secret(registryAuth) }),
    noProgressMs: policy.pullNoProgressMs,
    onProgress: () => undefined,
    signal,
  });
}
