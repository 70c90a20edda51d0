/**
 * Settles as `promise` does, or rejects with the signal's reason when it is aborted first. Its listener is gone afterwards: on a
 * signal that lives long, every forgotten one would be kept. A promise that is left behind may still fail; nobody hears of it.
 */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  // Also where the signal is aborted already: a rejection without a handler would end the process.
  promise.catch(() => undefined);
  signal.throwIfAborted();
  const cut = Promise.withResolvers<never>();
  const abort = () => cut.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, cut.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/**
 * A controller that is aborted with `parent`, or after `timeoutMs` where that is given, until it is unlinked. Unlike
 * `AbortSignal.any` it leaves nothing behind on a parent that lives long.
 */
export function linkedController(
  parent: AbortSignal,
  timeoutMs?: number,
): { controller: AbortController; signal: AbortSignal; unlink(): void } {
  const controller = new AbortController();
  const abort = () => controller.abort(parent.reason);
  const late = () => controller.abort(new DOMException(`not done within ${timeoutMs} ms`, "TimeoutError"));
  if (parent.aborted) abort();
  else parent.addEventListener("abort", abort, { once: true });
  const timer = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs);
  const unlink = () => {
    clearTimeout(timer);
    parent.removeEventListener("abort", abort);
  };
  return { controller, signal: controller.signal, unlink };
}
