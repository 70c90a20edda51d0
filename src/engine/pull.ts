import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import type { Secret } from "../protocol/secret.ts";
import type { RegistryAuth } from "../protocol/workload.ts";
import type { LocalImage, PullOptions } from "../workload/needs.ts";
import { PullLine } from "./answers.ts";
import { type EngineClient, jsonLines, piecesOf } from "./client.ts";
import { explain } from "./errors.ts";
import { inspectImage, parseReference } from "./images.ts";
import { hidingLogin, loginFor } from "./login.ts";
import type { OpenImages } from "./open-images.ts";
import { PullProgress } from "./pull-progress.ts";

/**
 * Pulling images.
 *
 * - A reference by digest that is here already is not pulled if this node has once had it without a login: it can be nothing else,
 *   and everybody may have it. For any other image that is here (had with a login, or the owner's own) the registry is asked
 *   for its manifest with the login of who wants it now: knowing a digest is no right to an image.
 * - A tag is always asked for again, which costs one manifest where nothing changed. If the registry cannot be reached then, the
 *   pull fails although an older image of that tag may be here: a tenant who names a tag expects what the registry has
 *   under it, and running something else without a word is worse than a clear failure. Who wants to be independent of the
 *   registry names a digest of an open image.
 * - The engine's stream of progress ends in the same way after a success and after a failure, so every line is looked at for
 *   an error, and in the end the image is looked up.
 * - Pulls of the same image with the same login share one. Each caller has a limit of its own; when the last one has gone the
 *   stream is destroyed, and with that the engine stops pulling.
 * - The engine picks the variant for its own platform, which is this machine's.
 */
export interface Puller {
  /** Throws `pull_failed`, `insufficient_disk`, `invalid_spec`, `engine_unavailable`, or the signal's reason. */
  pull(reference: string, options: PullOptions): Promise<LocalImage>;
}

interface SharedPull {
  progress: PullProgress;
  callers: number;
  over: AbortController;
  result: Promise<LocalImage>;
}

/** The engine answers once it has the manifest; a registry behind a slow link takes its time for that. */
const HEADERS_MS = 10 * 60_000;
/** How often waiting callers are told of progress, and stalls are looked for. */
const TICK_MS = 100;

export function createPuller(client: EngineClient, open: OpenImages): Puller {
  const shared = new Map<string, SharedPull>();

  function join(reference: string, auth: Secret<RegistryAuth> | undefined): SharedPull {
    // With another login it is another pull: nobody is handed what somebody else's credentials opened.
    const key = createHash("sha256")
      .update(JSON.stringify([reference, auth?.reveal()]))
      .digest("hex");
    const running = shared.get(key);
    if (running !== undefined) return running;
    const progress = new PullProgress();
    const over = new AbortController();
    const result = pullOnce({ client, open }, reference, { auth, progress, signal: over.signal }).finally(() => {
      if (shared.get(key)?.over === over) shared.delete(key);
    });
    result.catch(() => undefined);
    const pull = { progress, callers: 0, over, result };
    over.signal.addEventListener("abort", () => shared.delete(key), { once: true });
    shared.set(key, pull);
    return pull;
  }

  return {
    async pull(reference, options) {
      options.signal.throwIfAborted();
      const { repository, digest } = parseReference(reference);
      if (digest !== undefined && open.has(repository, digest)) {
        const here = await inspectImage(client, reference, options.signal);
        if (here !== undefined) return here;
      }
      const pull = join(reference, options.auth);
      pull.callers += 1;
      const done = new AbortController();
      try {
        const signal = AbortSignal.any([done.signal, options.signal]);
        const image = await Promise.race([pull.result, watch(reference, pull.progress, { ...options, signal })]);
        options.onProgress(pull.progress.currentBytes, pull.progress.totalBytes);
        return image;
      } finally {
        done.abort();
        pull.callers -= 1;
        if (pull.callers === 0) pull.over.abort();
      }
    },
  };
}

/** Tells one caller of the progress until the signal ends it; throws where there is none for too long. */
async function watch(reference: string, progress: PullProgress, options: PullOptions): Promise<never> {
  let told = -1;
  for (;;) {
    await sleep(TICK_MS, undefined, { signal: options.signal }).catch(() => options.signal.throwIfAborted());
    const { currentBytes, totalBytes, changes } = progress;
    if (changes !== told) options.onProgress(currentBytes, totalBytes);
    told = changes;
    const stillMs = performance.now() - progress.changedAt;
    if (stillMs < options.noProgressMs) continue;
    throw new GpunodeError(
      "pull_failed",
      `could not pull ${reference}: nothing came for ${options.noProgressMs / 1000} s after ${currentBytes} of ` +
        `${totalBytes} bytes: the registry or the way to it is stuck`,
      { details: { reason: "no_progress", currentBytes, totalBytes, noProgressMs: options.noProgressMs } },
    );
  }
}

async function pullOnce(
  { client, open }: { client: EngineClient; open: OpenImages },
  reference: string,
  options: { auth: Secret<RegistryAuth> | undefined; progress: PullProgress; signal: AbortSignal },
): Promise<LocalImage> {
  const { progress, signal } = options;
  const doing = `pull ${reference}`;
  const { repository, tag, digest } = parseReference(reference);
  const authconfig = loginFor(repository, options.auth);
  // A registry may repeat in its error what it was sent.
  const told = { otherwise: "pull_failed", hide: hidingLogin(options.auth) } as const;
  if (digest !== undefined) {
    // The engine itself would not ask: it keeps manifests it has once seen, and hands them to everybody.
    const path = `/distribution/${reference}/json`;
    await client.ask((abortSignal) => client.get(path, { abortSignal, ...(authconfig && { authconfig }) }), {
      doing,
      signal,
      timeoutMs: HEADERS_MS,
      ...told,
    });
    const here = await inspectImage(client, reference, signal);
    if (here !== undefined) {
      if (options.auth === undefined) open.add(repository, digest);
      return here;
    }
  }
  const stream = await client.open(
    (abortSignal) => client.docker.createImage(authconfig, { fromImage: repository, tag: digest ?? tag, abortSignal }),
    { doing, signal, timeoutMs: HEADERS_MS, ...told },
  );
  let pulled = digest;
  for await (const value of jsonLines(piecesOf(stream, signal))) {
    const line = PullLine.safeParse(value);
    if (!line.success) continue;
    const { error, errorDetail, status } = line.data;
    const words = errorDetail?.message ?? error;
    if (words !== undefined) throw explain(words, doing, told);
    pulled ??= /^Digest: (sha256:[0-9a-f]{64})$/.exec(status ?? "")?.[1];
    progress.take(line.data);
  }
  signal.throwIfAborted();
  if (options.auth === undefined && pulled !== undefined) open.add(repository, pulled);
  // By the digest the registry sent, since the tag may have been moved by another pull meanwhile.
  const exact = pulled === undefined ? undefined : await inspectImage(client, `${repository}@${pulled}`, signal);
  const image = exact ?? (await inspectImage(client, reference, signal));
  if (image !== undefined) return image;
  throw new GpunodeError(
    "pull_failed",
    `could not ${doing}: the engine ended the pull without an error, but has no image`,
  );
}
