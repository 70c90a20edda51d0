import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { startWatchdog } from "../../src/cli/watchdog.ts";
import { patiently } from "../agent/rig.ts";

/** Beats within `ms`, with the loop free. */
async function beatsIn(ms: number, env: NodeJS.ProcessEnv): Promise<number> {
  let beats = 0;
  using _watchdog = startWatchdog(() => {
    beats += 1;
  }, env);
  await sleep(ms);
  return beats;
}

it("beats while the event loop turns, not while it is kept, and not once it is over", async () => {
  let beats = 0;
  const watchdog = startWatchdog(
    () => {
      beats += 1;
    },
    { WATCHDOG_USEC: "40000", WATCHDOG_PID: String(process.pid) },
  );
  await patiently(() => (beats >= 3 ? true : undefined));
  const before = beats;
  // Promises alone keep the loop as well as a busy one does.
  const until = performance.now() + 200;
  while (performance.now() < until) await Promise.resolve();
  expect(beats).toBe(before);
  await patiently(() => (beats > before ? true : undefined));
  watchdog[Symbol.dispose]();
  const last = beats;
  await sleep(60);
  expect(beats).toBe(last);
});

it("is nobody else's: without a time, or for another process, it never beats", async () => {
  expect(await beatsIn(60, {})).toBe(0);
  expect(await beatsIn(60, { WATCHDOG_USEC: "0" })).toBe(0);
  expect(await beatsIn(60, { WATCHDOG_USEC: "nonsense" })).toBe(0);
  expect(await beatsIn(60, { WATCHDOG_USEC: "4000", WATCHDOG_PID: "1" })).toBe(0);
});

it("takes the launcher, which stands between systemd and us, for us", async () => {
  let beats = 0;
  using _watchdog = startWatchdog(
    () => {
      beats += 1;
    },
    { WATCHDOG_USEC: "4000", WATCHDOG_PID: String(process.ppid) },
  );
  await patiently(() => (beats > 0 ? true : undefined));
});
