import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { endGroup, isGroupAlive } from "./process-group.ts";

/** Why nvidia-smi could not tell what it was asked; `message` says what to do about it. */
export interface SmiProblem {
  code:
    | "not_found"
    | "not_executable"
    | "no_driver"
    | "no_library"
    | "driver_mismatch"
    | "permission"
    | "blocked"
    | "gpu_lost"
    | "no_devices"
    | "timeout"
    | "too_large"
    | "bad_field"
    | "unreadable"
    | "sampling_paused"
    | "failed";
  message: string;
}

export type SmiResult = { ok: true; stdout: string } | { ok: false; problem: SmiProblem };

/** One nvidia-smi, driven so that it can neither hang nor flood the daemon. */
export interface Smi {
  /** As configured: a name looked up in PATH, or a path. */
  readonly path: string;
  /** Runs it once; one at a time, others wait. Never rejects. */
  run(args: readonly string[], options?: { timeoutMs?: number; signal?: AbortSignal }): Promise<SmiResult>;
  /** Starts a long-lived one; its owner ends it with `endGroup`. Throws what `spawn` throws, and while paused. */
  stream(args: readonly string[]): SmiProcessHandle;
  /**
   * Ends every nvidia-smi started here and starts none until `resume`. Resolves when they are gone, with the pids of those that
   * SIGKILL did not end within 10 s: stuck in the driver, they still hold the device.
   */
  pause(): Promise<readonly number[]>;
  resume(): void;
}

/** A running nvidia-smi, first of a process group of its own. */
export type SmiProcessHandle = ChildProcessByStdio<null, Readable, null>;

/** One run that is over. */
export interface SmiRun {
  args: readonly string[];
  /** −1 where it could not be started, or was killed. */
  exitCode: number;
  durationMs: number;
  /** What it came to; undefined where it told what it was asked. */
  problem?: SmiProblem["code"];
}

export interface SmiOptions {
  path: string;
  env?: NodeJS.ProcessEnv;
  /** Told of each run but those that were cut by a pause or the caller; not of streams. */
  onRun?(run: SmiRun): void;
}

const TIMEOUT_MS = 30_000;
const PAUSE_PATIENCE_MS = 10_000;
const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;

export function createSmi({ path, env = process.env, onRun }: SmiOptions): Smi {
  const environment = { ...env, LC_ALL: "C" };
  let queue: Promise<unknown> = Promise.resolve();
  let isPaused = false;
  const started = new Set<number>();
  const spawnSmi = (args: readonly string[]): SmiProcessHandle => {
    if (isPaused) throw Object.assign(new Error("sampling is paused"), { code: "EPAUSED" });
    // A group of its own: where the program is a script, the nvidia-smi it starts is ended with it.
    const child = spawn(path, [...args], { env: environment, stdio: ["ignore", "pipe", "ignore"], detached: true });
    const { pid } = child;
    if (pid !== undefined) {
      started.add(pid);
      child.once("exit", () => {
        // What a script leaves running in its group is still ours.
        if (!isGroupAlive(pid)) started.delete(pid);
      });
    }
    return child;
  };
  return {
    path,
    run(args, { timeoutMs = TIMEOUT_MS, signal } = {}) {
      const next = queue.then(async () => {
        const began = performance.now();
        const { result, exitCode } = await runOnce(() => spawnSmi(args), path, {
          timeoutMs,
          ...(signal && { signal }),
        });
        if (!isPaused && signal?.aborted !== true) {
          const durationMs = performance.now() - began;
          onRun?.({ args, exitCode, durationMs, ...(!result.ok && { problem: result.problem.code }) });
        }
        return result;
      });
      queue = next;
      return signal === undefined ? next : unlessAborted(next, signal, path);
    },
    stream: spawnSmi,
    async pause() {
      isPaused = true;
      let left = [...started];
      const until = performance.now() + PAUSE_PATIENCE_MS;
      for (;;) {
        // Each time: a script may just have started another one.
        for (const pid of left) endGroup(pid);
        left = left.filter(isGroupAlive);
        for (const pid of started) if (!isGroupAlive(pid)) started.delete(pid);
        if (left.length === 0 || performance.now() > until) return left;
        await sleep(20);
      }
    },
    resume() {
      isPaused = false;
    },
  };
}

/** Who waits for its turn behind one that hangs need not wait any longer than it wants to. */
async function unlessAborted(run: Promise<SmiResult>, signal: AbortSignal, path: string): Promise<SmiResult> {
  const cut = Promise.withResolvers<SmiResult>();
  const abort = () => cut.resolve(failed("failed", `${path} was not asked: gpunode is stopping`));
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([run, cut.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function runOnce(
  start: () => SmiProcessHandle,
  path: string,
  { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
): Promise<{ result: SmiResult; exitCode: number }> {
  const unasked = (result: SmiResult) => Promise.resolve({ result, exitCode: -1 });
  if (signal?.aborted) return unasked(failed("failed", `${path} was not asked: gpunode is stopping`));
  let child: SmiProcessHandle;
  try {
    child = start();
  } catch (error) {
    // Node tells some of what can go wrong by throwing: ENOEXEC, ENOTDIR, ENOMEM, a path with a zero byte.
    return unasked(startProblem(path, error as NodeJS.ErrnoException));
  }
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const settle = (result: SmiResult, exitCode = -1) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      resolve({ result, exitCode });
    };
    // A process stuck in the driver (state D) survives SIGKILL: it is left behind rather than waited for.
    const abandon = (result: SmiResult) => {
      if (child.pid !== undefined) endGroup(child.pid);
      child.stdout.destroy();
      child.unref();
      settle(result);
    };
    const timer = setTimeout(() => {
      const message = `${path} has not answered within ${timeoutMs / 1000} s: the driver may hang; look at "dmesg" for NVRM lines, a reboot may be needed`;
      abandon(failed("timeout", message));
    }, timeoutMs);
    const onAbort = () => abandon(failed("failed", `${path} was cut: gpunode is stopping`));
    signal?.addEventListener("abort", onAbort, { once: true });
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > OUTPUT_MAX_BYTES) {
        abandon(
          failed(
            "too_large",
            `${path} printed more than ${OUTPUT_MAX_BYTES / 1024 / 1024} MiB: is it the real nvidia-smi?`,
          ),
        );
      } else chunks.push(chunk);
    });
    child.once("error", (error: NodeJS.ErrnoException) => settle(startProblem(path, error)));
    child.once("close", (code, killedBy) => {
      const stdout = Buffer.concat(chunks).toString("utf8");
      settle(classify(stdout, code ?? (killedBy === null ? -1 : 128), path), code ?? -1);
    });
  });
}

/** What an error of starting `path` means. */
export function startProblem(path: string, error: NodeJS.ErrnoException): SmiResult & { ok: false } {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") {
    return failed(
      "not_found",
      `${path} was not found: install the NVIDIA driver (on Debian "apt install nvidia-driver nvidia-smi"), or set nvidia.smi to where it is`,
    );
  }
  if (error.code === "EACCES")
    return failed("not_executable", `${path} may not be executed by this user: check its permissions`);
  if (error.code === "EPAUSED")
    return failed("sampling_paused", "sampling is paused: nvidia-smi is not asked until it is resumed");
  if (error.code === "ENOEXEC")
    return failed("not_executable", `${path} is no program of this machine: set nvidia.smi to the real nvidia-smi`);
  return failed("failed", `${path} could not be started: ${printable(error.message)}`);
}

/** nvidia-smi's own words on stdout, and what they mean to a provider. Exit codes differ between drivers, the words do not. */
const FAILURES: readonly { text: RegExp; code: SmiProblem["code"]; meaning: string }[] = [
  {
    text: /couldn't find libnvidia-ml|couldn't find .*NVML/i,
    code: "no_library",
    meaning: "the driver's library libnvidia-ml.so.1 is missing: reinstall the NVIDIA driver",
  },
  {
    text: /couldn't communicate with the NVIDIA driver/i,
    code: "no_driver",
    meaning:
      'the NVIDIA kernel module is not loaded: try "sudo modprobe nvidia", or reinstall the driver for this kernel',
  },
  {
    text: /Driver\/library version mismatch|Mismatch in versions between nvidia-smi and NVML/i,
    code: "driver_mismatch",
    meaning:
      "the loaded kernel module and the driver's library have different versions, as after an upgrade: reboot, or unload and load the nvidia modules",
  },
  {
    text: /Insufficient Permissions/i,
    code: "permission",
    meaning: "this user may not use the GPU devices: check the permissions of /dev/nvidia*",
  },
  {
    text: /blocked by the operating system/i,
    code: "blocked",
    meaning: "the operating system blocks the GPU: check Secure Boot, cgroup device rules and the hypervisor",
  },
  {
    text: /^Failed to initialize NVML: GPU is lost|^Unable to determine the device handle.*(GPU is lost|Unknown Error)/im,
    code: "gpu_lost",
    meaning: "a GPU has fallen off the bus: power-cycle the machine; check its power and riser if it happens again",
  },
  { text: /^No devices were found/im, code: "no_devices", meaning: "the driver sees no GPU" },
  {
    text: /is not a valid field to query/i,
    code: "bad_field",
    meaning: "this driver does not know a field that was asked for",
  },
];

/** Reads what a run came to from its words and exit code. Output that holds a document counts, whatever the code. */
export function classify(stdout: string, exitCode: number, path = "nvidia-smi"): SmiResult {
  if (/<nvidia_smi_log>/.test(stdout)) return { ok: true, stdout };
  const said = `${path} (exit ${exitCode})`;
  const head = stdout.slice(0, 4096);
  // Rows of other GPUs may follow a line about a lost one: those are worth reading.
  const rows = exitCode === 0 || (exitCode !== 2 && /^\s*(GPU-|MIG-|\d+,|GPU \d+:)/m.test(head));
  if (rows && !/^(Failed to initialize NVML|NVIDIA-SMI (has failed|couldn't)|No devices were found)/im.test(head)) {
    return { ok: true, stdout };
  }
  const known = FAILURES.find(({ text }) => text.test(head));
  if (known !== undefined) return failed(known.code, `${said}: ${known.meaning}`);
  if (exitCode === 0) return { ok: true, stdout };
  const first =
    head
      .split("\n")
      .find((line) => line.trim() !== "")
      ?.trim()
      .slice(0, 200) ?? "no output";
  return failed("failed", `${said} failed: ${printable(first)}`);
}

function failed(code: SmiProblem["code"], message: string): SmiResult & { ok: false } {
  return { ok: false, problem: { code, message } };
}

function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what it takes out
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
