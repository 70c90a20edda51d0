import { setImmediate as nextTurn } from "node:timers/promises";

/** systemd advises a sign of life every half of the time it waits; one in four may then be lost without harm. */
const BEATS_PER_TIMEOUT = 4;

/**
 * Calls `beat` so often that systemd's watchdog (`WatchdogSec=`) is content, until disposed of; never where none is set for this process.
 *
 * A beat follows a timer and a whole turn of the event loop after it: it shows that timers fire, that answers are read and that no promise
 * keeps the loop to itself. It tells nothing of coordinator, engine or GPUs: who cannot be reached is no reason to end a healthy daemon.
 */
export function startWatchdog(beat: () => void, env: NodeJS.ProcessEnv = process.env): Disposable {
  const everyMs = watchdogMs(env) / BEATS_PER_TIMEOUT;
  if (Number.isNaN(everyMs)) return { [Symbol.dispose]: () => undefined };
  let isOver = false;
  const timer = setInterval(() => {
    void nextTurn().then(() => {
      if (!isOver) beat();
    });
  }, everyMs).unref();
  return {
    [Symbol.dispose]() {
      isOver = true;
      clearInterval(timer);
    },
  };
}

/** As sd_watchdog_enabled(3) reads it; NaN where there is none. The launcher may stand between systemd and us, as our parent. */
function watchdogMs({ WATCHDOG_USEC, WATCHDOG_PID }: NodeJS.ProcessEnv): number {
  const isOurs = WATCHDOG_PID === undefined || [process.pid, process.ppid].includes(Number(WATCHDOG_PID));
  return isOurs && /^[1-9]\d*$/.test(WATCHDOG_USEC ?? "") ? Number(WATCHDOG_USEC) / 1000 : Number.NaN;
}
