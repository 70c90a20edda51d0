import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import { notifySystemd, type ServiceState } from "./notify.ts";
import { EXIT } from "./outcome.ts";

/** What `src/agent.ts` exports as `runAgent`: resolves when `signal` was aborted and everything is closed. */
export type RunAgent = (
  config: Config,
  options: {
    log: Logger;
    signal: AbortSignal;
    version: string;
    /** To be called once, when the local socket answers. */
    onReady: () => void;
  },
) => Promise<void>;

export interface DaemonOptions {
  log: Logger;
  version: string;
  /** A clean end takes no longer; then the process ends all the same, with exit code 1. */
  stopWithinMs?: number;
}

const STOP_WITHIN_MS = 25_000;
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
  const { log, version, stopWithinMs = STOP_WITHIN_MS } = options;
  const stop = new AbortController();
  // One after the other, so that systemd hears them in order.
  let told = Promise.resolve();
  const tell = (state: ServiceState) => {
    told = told
      .then(() => notifySystemd(state))
      .catch((error: unknown) => log.warn({ err: error }, "systemd could not be told"));
  };
  let firstSignalAt: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    const now = performance.now();
    if (firstSignalAt === undefined) {
      firstSignalAt = now;
      log.info({ signal }, "stopping; a second signal ends at once");
      tell({ stopping: true, status: "stopping" });
      stop.abort();
      void sleep(stopWithinMs, undefined, { ref: false }).then(() => {
        log.fatal({ stopWithinMs }, "could not end cleanly in time");
        process.exit(EXIT.failed);
      });
    } else if (now - firstSignalAt > SAME_SIGNAL_MS) {
      log.warn({ signal }, "ending at once");
      process.exit(EXIT.failed);
    }
  };
  process.on("SIGTERM", onSignal).on("SIGINT", onSignal);
  process.on("uncaughtExceptionMonitor", (error) => log.fatal({ err: error }, "a bug ended gpunode"));
  try {
    const onReady = () => tell({ ready: true, status: "running" });
    await runAgent(config, { log, signal: stop.signal, version, onReady });
    await told;
    log.info("stopped");
    return EXIT.done;
  } catch (error) {
    const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
    // What the owner can put right needs no stack.
    if (name === "ConfigError" || name === "AlreadyRunning") log.fatal(message);
    else log.fatal({ err: error }, `gpunode cannot go on: ${message}`);
    return name === "ConfigError" ? EXIT.badConfiguration : EXIT.failed;
  }
}
