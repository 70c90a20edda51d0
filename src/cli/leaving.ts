import { readFile } from "node:fs/promises";
import type { Leaving } from "../agent.ts";
import type { Config } from "../config/config.ts";
import { askSystemd, type OwnUnit, ownUnit, type SystemdAnswer } from "./systemd.ts";

/*
 * A daemon that is told to end cannot see why. For the work it makes all the difference:
 *
 *   detach   the agent ends, the work goes on and is adopted by the next agent: a restart, an upgrade, Ctrl-C, a crash
 *   stop     the work ends too, with notice: the service is stopped, the machine goes down
 *
 * systemd sends SIGTERM for all of them. What it is about to do stands in its queue of jobs, where ours is the one that runs:
 *
 *   systemctl restart, try-restart, reload-or-restart, restart of a unit ours is PartOf=      restart   detach
 *   systemctl stop, isolate, stop of a unit ours is PartOf=, poweroff, reboot, halt, kexec    stop      stop
 *   kill, systemctl kill: the process is ended and not the service, which starts it again     none      detach
 *
 * Where systemd cannot be asked, the work goes on: what was not ended can be ended later, but not the other way round.
 */

/** What is to become of the work, and the sentence that says so to the owner. */
export interface Decision {
  leaving: Leaving;
  says: string;
  /** False where the answer could not be had and this is the safe guess. */
  sure: boolean;
  /** TimeoutStopSec of the unit, where there is one; undefined: unknown. */
  stopTimeoutMs?: number;
}

/**
 * What a start job of these targets means for our stop job; systemd.special(7). All of the first ones bring `shutdown.target` along,
 * so it comes last.
 */
const ENDS_OF_THE_MACHINE: readonly (readonly [target: string, means: string])[] = [
  ["reboot.target", "the machine restarts"],
  ["kexec.target", "the machine restarts"],
  ["soft-reboot.target", "the machine restarts"],
  ["poweroff.target", "the machine shuts down"],
  ["halt.target", "the machine shuts down"],
  ["exit.target", "the session that gpunode runs in ends"],
  ["shutdown.target", "the machine shuts down"],
];

const HOW_TO_END = 'to end it, run "gpunode drain" before leaving';

/** What a unit that cannot be given more time keeps for the daemon's own end, of its TimeoutStopSec. */
const OWN_END_MS = 10_000;

/** Decides, at a signal, whether the work goes on. Never throws. */
export async function decideLeaving(
  preemption: Pick<Config["preemption"], "hostShutdown" | "hostShutdownMs">,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Decision> {
  const isService = Boolean(env.NOTIFY_SOCKET || env.INVOCATION_ID);
  const unit = isService ? ownUnit(await readFile("/proc/self/cgroup", "utf8").catch(() => "")) : undefined;
  if (unit === undefined) return detach(`what runs goes on, and the next gpunode takes it up; ${HOW_TO_END}`);
  if (!preemption.hostShutdown) return detach("what runs goes on: preemption.host_shutdown is off");
  try {
    return decisionOn(await askSystemd(unit), unit, preemption, { canExtend: Boolean(env.NOTIFY_SOCKET) });
  } catch (error) {
    const why = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ").trim();
    const says = `systemd cannot be asked whether it stops or restarts ${unit.name}, so what runs goes on; ${HOW_TO_END} (${why})`;
    return { ...detach(says), sure: false };
  }
}

/** What follows from systemd's answer. `canExtend`: the unit's time can be made longer (sd_notify). */
export function decisionOn(
  { jobs, stopTimeoutMs }: SystemdAnswer,
  unit: OwnUnit,
  { hostShutdownMs }: Pick<Config["preemption"], "hostShutdownMs">,
  { canExtend }: { canExtend: boolean },
): Decision {
  const job = jobs.find(({ unit: name }) => name === unit.name)?.type;
  if (job === undefined) return detach(`what runs goes on: the process was ended, not ${unit.name}`);
  if (job !== "stop") return detach(`what runs goes on: systemd's job for ${unit.name} is "${job}"`);
  const starts = new Set(jobs.filter(({ type }) => type === "start").map(({ unit: name }) => name));
  const means = ENDS_OF_THE_MACHINE.find(([target]) => starts.has(target))?.[1] ?? "the service is stopped";
  const unitMs = stopTimeoutMs ?? Number.POSITIVE_INFINITY;
  const withinMs = canExtend ? hostShutdownMs : Math.min(hostShutdownMs, unitMs - Math.min(OWN_END_MS, unitMs / 2));
  return {
    leaving: { kind: "stop", withinMs, message: means },
    says: `${means}: what runs ends within ${Math.round(withinMs / 1000)} s, with notice`,
    sure: true,
    ...(stopTimeoutMs !== undefined && { stopTimeoutMs }),
  };
}

function detach(says: string): Decision {
  return { leaving: { kind: "detach" }, says, sure: true };
}
