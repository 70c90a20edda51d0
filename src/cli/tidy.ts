import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** What gathers in a minute is 2 to 4 MiB; collecting it takes some 35 ms. */
const EVERY_MS = 60_000;

/** As V8 does when memory runs out: pages go back to the system too, and code that has not run for a while. */
const COLLECT = 'gc({ type: "major", flavor: "last-resort" })';

/**
 * Collects garbage every minute, until disposed of. V8 would let a process with so little gather some ten MiB first, to spare it work: this
 * one shares the machine with its owner (docs/performance.md).
 */
export function keepTidy(everyMs = EVERY_MS): Disposable {
  setFlagsFromString("--expose-gc");
  // Only a context that is made now has the function, and one that is kept would cost what it saves.
  const timer = setInterval(() => runInNewContext(COLLECT), everyMs);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
