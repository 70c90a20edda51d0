import { setTimeout as sleep } from "node:timers/promises";
import type { HealthProbe, PortBinding } from "../protocol/workload.ts";
import { linkedController } from "./abort.ts";
import type { Engine } from "./needs.ts";

/** What a health watch needs to know of the workload it watches. */
export interface Watched {
  engine: Engine;
  containerId: string;
  ports: readonly PortBinding[];
  /** Address the ports are published on. */
  hostIp: string;
  signal: AbortSignal;
  /** Called when the verdict changes, first when there is one. */
  report(healthy: boolean): void;
}

/**
 * Asks a workload for its health every `intervalSeconds` until the signal ends it. One good answer makes it healthy;
 * `retries` bad ones in a row make it unhealthy. Bad answers within `startPeriodSeconds` don't count. Never rejects.
 */
export async function watchHealth(probe: HealthProbe, watched: Watched): Promise<void> {
  const graceEnds = performance.now() + probe.startPeriodSeconds * 1000;
  let verdict: boolean | undefined;
  let misses = 0;
  while (!watched.signal.aborted) {
    const good = await ask(probe, watched);
    if (watched.signal.aborted) return;
    if (good) misses = 0;
    else if (performance.now() >= graceEnds || verdict === true) misses += 1;
    const now = good ? true : misses >= probe.retries ? false : verdict;
    if (now !== undefined && now !== verdict) {
      verdict = now;
      try {
        watched.report(now);
      } catch {
        // The verdict could not be recorded (the disk refuses): it is told again with the next answer.
        verdict = undefined;
      }
    }
    await sleep(probe.intervalSeconds * 1000, undefined, { signal: watched.signal }).catch(() => undefined);
  }
}

async function ask(probe: HealthProbe, watched: Watched): Promise<boolean> {
  const timeoutMs = probe.timeoutSeconds * 1000;
  const limit = linkedController(watched.signal, timeoutMs);
  try {
    if ("exec" in probe) {
      const { exitCode } = await watched.engine.exec(watched.containerId, probe.exec, {
        timeoutMs,
        signal: watched.signal,
      });
      return exitCode === 0;
    }
    const { port, path } = probe.http;
    const host = watched.ports.find((binding) => binding.container === port && binding.protocol !== "udp")?.host;
    if (host === undefined) return false;
    const address = watched.hostIp === "0.0.0.0" || watched.hostIp === "::" ? "127.0.0.1" : watched.hostIp;
    const response = await fetch(`http://${address.includes(":") ? `[${address}]` : address}:${host}${path}`, {
      redirect: "manual",
      signal: limit.signal,
    });
    await response.body?.cancel();
    return response.status >= 200 && response.status < 400;
  } catch {
    return false;
  } finally {
    limit.unlink();
  }
}
