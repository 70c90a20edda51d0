import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** What systemd is told of a service of `Type=notify` (sd_notify(3)). */
export interface ServiceState {
  ready?: true;
  stopping?: true;
  /** One line for `systemctl status`. */
  status?: string;
  /** Whatever systemd does now (starting, stopping) may take so much longer from here on, beyond the unit's own limit. */
  extendByMs?: number;
  /** A sign of life for the unit's `WatchdogSec=`. */
  alive?: true;
}

const TIMEOUT_MS = 5000;

/**
 * Tells systemd, through its own `systemd-notify`: Node has no datagram unix sockets. The unit needs `NotifyAccess=all`,
 * since the message comes from a child. Does nothing where systemd did not start us. Throws where the program fails.
 */
export async function notifySystemd(state: ServiceState, env: NodeJS.ProcessEnv = process.env): Promise<void> {
  if (!env.NOTIFY_SOCKET) return;
  const assignments = [
    ...(state.ready === true ? ["READY=1"] : []),
    ...(state.stopping === true ? ["STOPPING=1"] : []),
    ...(state.alive === true ? ["WATCHDOG=1"] : []),
    ...(state.extendByMs === undefined ? [] : [`EXTEND_TIMEOUT_USEC=${Math.round(state.extendByMs * 1000)}`]),
    ...(state.status === undefined ? [] : [`STATUS=${state.status.replaceAll("\n", " ")}`]),
  ];
  await promisify(execFile)("systemd-notify", assignments, { env, timeout: TIMEOUT_MS });
}
