import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { AgentOptions } from "../agent.ts";
import type { Config } from "../config/config.ts";
import { BUG } from "../protocol/errors.ts";
import { type Decision, decideLeaving } from "./leaving.ts";
import { notifySystemd, type ServiceState } from "./notify.ts";
import { EXIT } from "./outcome.ts";
import { startWatchdog } from "./watchdog.ts";

/** What `src/agent.ts` exports as `runAgent`; here it is always told what becomes of the work. */
export type RunAgent = (config: Config, options: AgentOptions & Required<Pick<AgentOptions, "leave">>) => Promise<void>;

export interface DaemonOptions extends Pick<AgentOptions, "log" | "version" | "asked" | "hostDetails"> {
  /** Called once, when the local socket answers. */
  onUp?(): void;
  /** A clean end takes no longer, after the work's own where that ends too; then the process ends all the same, with exit code 1. */
  stopWithinMs?: number;
}

const STOP_WITHIN_MS = 25_000;
const SYSTEMD_DEAF =
  "systemd could not be told how it goes, and may take this service for one that hangs: is systemd-notify in its PATH?";
/** systemd is asked for this much more time, again and again while the work ends, so that a daemon that hangs gets no more. */
const EXTEND_BY_MS = 30_000;
const EXTEND_EVERY_MS = 10_000;
/**
 * npm and terminals send a Ctrl-C both to us and to whoever started us, who passes it on: signals this close together are
 * one.
 */
const SAME_SIGNAL_MS = 300;

/**
 * Runs the agent until SIGTERM or SIGINT. A second signal ends the process at once. Resolves to the exit code: 0 after a
 * clean end, 78 for a configuration that turned out wrong, 1 otherwise.
 */
export async function runDaemon(runAgent: RunAgent, config: Config, options: DaemonOptions): Promise<number> {
  const { stopWithinMs = STOP_WITHIN_MS, onUp, ...agent } = options;
  const { log } = agent;
  const stop = new AbortController();
  // One after the other, so that systemd hears them in order.
  let told = Promise.resolve();
  const tell = (state: ServiceState) => {
    told = told.then(() => notifySystemd(state)).catch((error: unknown) => log.warn({ err: error }, SYSTEMD_DEAF));
  };
  const decision = Promise.withResolvers<Decision>();
  let extending: NodeJS.Timeout | undefined;
  let watchdog: Disposable | undefined;
  const leaveAs = ({ leaving, says, sure, stopTimeoutMs = 0 }: Decision) => {
    log[sure ? "info" : "warn"](says);
    tell({ stopping: true, status: `stopping: ${says}` });
    const endWithinMs = stopWithinMs + (leaving.kind === "stop" ? leaving.withinMs : 0);
    void sleep(endWithinMs, undefined, { ref: false }).then(() => {
      log.fatal(
        `could not end cleanly in time (${Math.round(endWithinMs / 1000)} s): ending at once. What still runs is taken up by the next start`,
      );
      process.exit(EXIT.failed);
    });
    if (leaving.kind !== "stop" || stopTimeoutMs >= endWithinMs) return;
    const extend = () => tell({ extendByMs: EXTEND_BY_MS });
    extend();
    extending = setInterval(extend, EXTEND_EVERY_MS);
  };
  const announced = decision.promise.then(async (decided) => {
    // In this very turn the agent gives the notice, which is not to wait for the start of another program.
    await nextTurn();
    leaveAs(decided);
  });
  let firstSignalAt: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    const now = performance.now();
    if (firstSignalAt === undefined) {
      firstSignalAt = now;
      decision.resolve(decideLeaving(config.preemption));
      log.info({ signal }, "stopping; a second signal ends at once");
      stop.abort();
    } else if (now - firstSignalAt > SAME_SIGNAL_MS) {
      log.warn({ signal }, "a second signal: ending at once. What runs goes on, and is taken up by the next start");
      process.exit(EXIT.failed);
    }
  };
  process.on("SIGTERM", onSignal).on("SIGINT", onSignal);
  process.on("uncaughtExceptionMonitor", (error) => log.fatal({ err: error }, `gpunode ends, by ${BUG}`));
  try {
    const onReady = () => {
      tell({ ready: true, status: "running" });
      onUp?.();
      // From READY=1 on systemd waits for it.
      watchdog = startWatchdog(() => tell({ alive: true }));
    };
    const leave = async () => (await decision.promise).leaving;
    await runAgent(config, { ...agent, signal: stop.signal, leave, onReady });
    if (stop.signal.aborted) await announced;
    await told;
    log.info("stopped");
    return EXIT.done;
  } catch (error) {
    const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
    // What the owner can put right needs no stack.
    if (name === "ConfigError" || name === "AlreadyRunning") log.fatal(message);
    else log.fatal({ err: error }, `gpunode cannot go on: ${message}`);
    return name === "ConfigError" ? EXIT.badConfiguration : EXIT.failed;
  } finally {
    clearInterval(extending);
    watchdog?.[Symbol.dispose]();
  }
}
