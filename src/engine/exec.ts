import { readFile } from "node:fs/promises";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../workload/needs.ts";
import { CreateAnswer, ExecAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer, piecesOf } from "./client.ts";
import { demultiplex } from "./logs.ts";

/** More than a health check or a checkpoint has to say. */
const OUTPUT_MOST_BYTES = 64 * 1024;
/** A command that says more is read no faster than this, so that one that prints gigabytes costs the owner neither memory nor a core. */
const LOUD_BYTES = 1024 * 1024;
const LOUD_EVERY_MS = 100;
/** What a killed command gets to be gone. */
const KILLED_MS = 2_000;

export interface ExecOptions {
  timeoutMs: number;
  signal: AbortSignal;
}

/**
 * Runs a command in a running container. Its output beyond 64 KiB is read and dropped, at some 10 MiB/s, so that it never blocks on it
 * for good.
 *
 * The engine has no request that ends a command: closing its connection leaves it running. So on time-out and
 * abort its process group is killed from outside, by the host's process id that the engine tells. Where this process may not
 * do that (not root, or in another PID namespace) `kill` is run inside the container, if it has one; if it has not,
 * the command lives on until its container ends, and the log says so.
 */
export async function execInside(
  doors: { client: EngineClient; log: Log | undefined },
  containerId: string,
  argv: string[],
  options: ExecOptions,
): Promise<{ exitCode?: number; output: string }> {
  const { client } = doors;
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), options.timeoutMs);
  const stopNow = () => limit.abort();
  options.signal.throwIfAborted();
  options.signal.addEventListener("abort", stopNow, { once: true });
  const output: Buffer[] = [];
  let execId: string | undefined;
  try {
    execId = await createExec(client, containerId, argv);
    const stream = await startExec(client, execId, limit.signal);
    let bytes = 0;
    let loud = LOUD_BYTES;
    for await (const { data } of demultiplex(piecesOf(stream, limit.signal))) {
      if (bytes < OUTPUT_MOST_BYTES) output.push(data.subarray(0, OUTPUT_MOST_BYTES - bytes));
      bytes += data.length;
      if (bytes < loud) continue;
      loud += LOUD_BYTES;
      await sleep(LOUD_EVERY_MS, undefined, { signal: limit.signal });
    }
  } catch (error) {
    if (!limit.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", stopNow);
  }
  const text = Buffer.concat(output).toString("utf8");
  if (limit.signal.aborted) {
    if (execId !== undefined) await endExec(doors, containerId, execId);
    options.signal.throwIfAborted();
    return { output: text };
  }
  const exitCode = execId === undefined ? undefined : await exitCodeOf(client, execId);
  return { ...(exitCode !== undefined && { exitCode }), output: text };
}

async function createExec(client: EngineClient, containerId: string, argv: string[]): Promise<string> {
  const request = { Cmd: argv, AttachStdout: true, AttachStderr: true, Tty: false };
  const answer = await client.ask(
    (abortSignal) => client.docker.getContainer(containerId).exec({ ...request, abortSignal }),
    { doing: `run ${argv[0]} in container ${containerId.slice(0, 12)}` },
  );
  return parseAnswer(CreateAnswer, answer, "a command").id;
}

async function startExec(client: EngineClient, execId: string, signal?: AbortSignal): Promise<Readable> {
  return await client.open((abortSignal) => client.docker.getExec(execId).start({ Detach: false, abortSignal }), {
    doing: "start a command in a container",
    signal,
  });
}

async function inspectExec(client: EngineClient, execId: string) {
  const answer = await client.ask((abortSignal) => client.docker.getExec(execId).inspect({ abortSignal }), {
    doing: "look up a command in a container",
  });
  return parseAnswer(ExecAnswer, answer, "a command");
}

/** The output ends a moment before the engine has noted the exit code. */
async function exitCodeOf(client: EngineClient, execId: string): Promise<number | undefined> {
  const deadline = performance.now() + KILLED_MS;
  for (;;) {
    const { Running, ExitCode } = await inspectExec(client, execId);
    if (!Running || performance.now() > deadline) return ExitCode ?? undefined;
    await sleep(10);
  }
}

async function endExec(
  { client, log }: { client: EngineClient; log: Log | undefined },
  containerId: string,
  execId: string,
): Promise<void> {
  try {
    const { Running, Pid } = await inspectExec(client, execId);
    if (!Running || Pid === 0) return;
    if (!(await killFromOutside(Pid, containerId))) await killFromInside(client, containerId, Pid);
    const deadline = performance.now() + KILLED_MS;
    while (performance.now() < deadline) {
      if (!(await inspectExec(client, execId)).Running) return;
      await sleep(20);
    }
    log?.warn(
      { containerId, pid: Pid },
      "a command in a container ran out of its time and could not be killed: it goes on until the container ends",
    );
  } catch (error) {
    log?.warn(
      { containerId, err: error },
      "a command in a container ran out of its time and could not be killed: it may go on until the container ends",
    );
  }
}

/** runc makes each command a session of its own, so its process group is all that it started and did not detach. */
async function killFromOutside(pid: number, containerId: string): Promise<boolean> {
  // The number means this process only where its cgroup names the container: in another PID namespace it is a stranger's.
  const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  if (!cgroup.includes(containerId)) return false;
  try {
    process.kill(-pid, "SIGKILL");
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

async function killFromInside(client: EngineClient, containerId: string, hostPid: number): Promise<void> {
  // The last number is that of the innermost namespace; the file can be read by everybody.
  const status = await readFile(`/proc/${hostPid}/status`, "utf8").catch(() => "");
  const pid = /^NSpid:.*?(\d+)$/m.exec(status)?.[1];
  if (pid === undefined) return;
  const execId = await createExec(client, containerId, ["kill", "-KILL", `-${pid}`]);
  (await startExec(client, execId)).destroy();
}
