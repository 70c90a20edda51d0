/**
 * Settles as `promise` does, or rejects with the signal's reason when it is aborted first. Its listener is gone afterwards: on a
 * signal that lives long, every forgotten one would be kept.
 */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
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
