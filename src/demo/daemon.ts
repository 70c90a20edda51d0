import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Programs } from "./debian-packages.ts";
import { engineAnswers } from "./engine-api.ts";
import { ENGINE_MARKER, type EngineState, processStartTicks } from "./engine-state.ts";

/** A cold dockerd on a busy two-core machine took 3 s; ten times that is a failure. */
const START_TIMEOUT_MS = 30_000;
/** What dockerd gets to end by itself before it is killed. */
const STOP_TIMEOUT_MS = 10_000;
/** The kernel kills containerd with dockerd; so long may that take. */
const CONTAINERD_END_TIMEOUT_MS = 1_000;

/** The dockerd process of one private engine, which may end and be started again. */
export type Daemon = ReturnType<typeof daemonOf>;

/** Prepares dockerd for the folder and the configuration file of `state`; nothing runs before `start`. */
export function daemonOf(
  state: EngineState,
  programs: Programs,
  { networkNamespace, through = [] }: { networkNamespace?: string; through?: readonly string[] } = {},
) {
  const socket = join(state.runDir, "docker.sock");
  const logFile = join(state.dir, "dockerd.log");
  const pidFile = join(state.runDir, "dockerd.pid");
  let child: ChildProcess | undefined;
  const running = () =>
    child !== undefined && child.exitCode === null && child.signalCode === null ? child : undefined;

  async function start(signal?: AbortSignal): Promise<void> {
    // The pid file of a killed dockerd stops the next one ("pid file found") as soon as its number lives again.
    await rm(pidFile, { force: true });
    await rm(socket, { force: true });
    await forgetDeadContainerd(state.runDir);
    const log = openSync(logFile, "a");
    const args = ["--config-file", join(state.dir, "daemon.json"), "--pidfile", pidFile, "--host", `unix://${socket}`];
    const command = [...through, programs.paths.dockerd ?? "dockerd", ...args];
    // Not `ip netns exec`, which gives it another /sys with no cgroups in it.
    if (networkNamespace !== undefined) command.unshift("nsenter", `--net=/run/netns/${networkNamespace}`);
    child = spawn(command[0] ?? "", command.slice(1), {
      env: { ...process.env, ...programs.env, [ENGINE_MARKER]: state.dir },
      stdio: ["ignore", log, log],
      // Its own process group: Ctrl-C in a terminal must reach us and not dockerd, which we end ourselves.
      detached: true,
    });
    closeSync(log);
    child.on("error", () => undefined);
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!(await engineAnswers(socket, 1_000))) {
      signal?.throwIfAborted();
      if (running() === undefined || child.pid === undefined || Date.now() > deadline) {
        const text = await readFile(logFile, "utf8").catch(() => "");
        await kill();
        throw new Error(
          `dockerd did not come up. The end of its log:\n${text.trim().split("\n").slice(-5).join("\n")}`,
        );
      }
      await sleep(30);
    }
  }

  async function end(name: NodeJS.Signals): Promise<void> {
    const current = running();
    if (current?.pid === undefined) return;
    const exited = once(current, "exit");
    current.kill(name);
    const timer = setTimeout(() => current.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await exited.finally(() => clearTimeout(timer));
  }

  const kill = () => end("SIGKILL");
  return { socket, logFile, start, kill, terminate: () => end("SIGTERM"), pid: () => running()?.pid };
}

/**
 * After a SIGKILL of dockerd its containerd is killed by the kernel, but where process 1 does not collect orphans it stays as
 * a zombie. dockerd takes that for a running containerd, waits for its socket and gives up.
 */
async function forgetDeadContainerd(runDir: string): Promise<void> {
  const pidFile = join(runDir, "exec/containerd/containerd.pid");
  const pid = Number(await readFile(pidFile, "utf8").catch(() => Number.NaN));
  if (Number.isNaN(pid)) return;
  const deadline = Date.now() + CONTAINERD_END_TIMEOUT_MS;
  while (processStartTicks(pid) !== undefined && Date.now() < deadline) await sleep(20);
  if (processStartTicks(pid) === undefined) await rm(pidFile, { force: true });
}
