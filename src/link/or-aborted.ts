/**
 * The promise's outcome, or undefined as soon as the signal aborts. Leaves no listener behind, so it may be used in a
 * loop over a signal that lives long (`Promise.race` with one lasting promise would keep every round).
 */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const abort = () => resolve(undefined);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
