import { spawn } from "node:child_process";
import { request } from "node:http";
import { basename } from "node:path";

/** What a program or a service said; `problem` where it said nothing, or not all. */
export interface Said {
  text: string;
  problem?: string;
}

export interface Limits {
  /** Ends it early; what it said until then stands. */
  signal: AbortSignal;
  timeoutMs?: number;
  maxBytes?: number;
}

const TIMEOUT_MS = 20_000;
const MAX_BYTES = 8 * 1024 * 1024;

/**
 * What a program prints, both streams (or the first alone), cut where it takes too long or prints too much. Never rejects, and waits for
 * nobody who hangs.
 */
export function printed(
  program: string,
  args: readonly string[],
  { isStdoutOnly = false, signal, timeoutMs = TIMEOUT_MS, maxBytes = MAX_BYTES }: Limits & { isStdoutOnly?: boolean },
): Promise<Said> {
  return new Promise((resolve) => {
    // A group of its own: what a script has started ends with it.
    const child = spawn(program, args, {
      env: { ...process.env, LC_ALL: "C.UTF-8" },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    const chunks: Buffer[] = [];
    let complaint = "";
    let bytes = 0;
    const settle = (problem?: string, { isCut = false } = {}) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      const text = Buffer.concat(chunks).toString("utf8");
      // A line that was cut may be half a secret, which nobody would know as one.
      resolve({
        text: isCut ? text.slice(0, text.lastIndexOf("\n") + 1) : text,
        ...(problem !== undefined && { problem }),
      });
    };
    const kill = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    };
    const abort = () => {
      kill();
      settle("it was cut: interrupted", { isCut: true });
    };
    signal.addEventListener("abort", abort, { once: true });
    const timer = setTimeout(() => {
      kill();
      settle(`it was cut: no end within ${timeoutMs / 1000} s`, { isCut: true });
    }, timeoutMs);
    const keep = (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(bytes > maxBytes ? chunk.subarray(0, Math.max(0, chunk.length - (bytes - maxBytes))) : chunk);
      if (bytes <= maxBytes) return;
      kill();
      settle(`it was cut: more than ${maxBytes / 1024 / 1024} MiB`, { isCut: true });
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", (chunk: Buffer) => {
      if (!isStdoutOnly) keep(chunk);
      else if (complaint.length < MOST_COMPLAINT) complaint += chunk.toString().slice(0, MOST_COMPLAINT);
    });
    child.once("error", (error: NodeJS.ErrnoException) =>
      settle(error.code === "ENOENT" ? `there is no ${program} here` : `${program} could not be run (${error.code})`),
    );
    child.once("close", (code) => {
      const why = complaint.trim().replace(/^gpunode: /, "");
      settle(code === 0 ? undefined : why || `${basename(program)} ended with exit code ${code}`);
    });
  });
}

const MOST_COMPLAINT = 1000;

/** The answer of an HTTP service on a unix socket. Never rejects. */
export function answered(
  socketPath: string,
  path: string,
  { signal, timeoutMs = TIMEOUT_MS, maxBytes = MAX_BYTES }: Limits,
): Promise<Said> {
  return new Promise((resolve) => {
    const failed = (problem: string) => resolve({ text: "", problem });
    const asked = request(
      {
        socketPath,
        path,
        agent: false,
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        headers: { Host: "localhost" },
      },
      (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > maxBytes) {
            failed(`it answered with more than ${maxBytes / 1024 / 1024} MiB`);
            response.destroy();
          } else chunks.push(chunk);
        });
        response.on("error", (error) => failed(error.message));
        response.on("end", () => {
          const { statusCode } = response;
          if (statusCode === 200) resolve({ text: Buffer.concat(chunks).toString("utf8") });
          else failed(`${path} was answered with HTTP ${statusCode}`);
        });
      },
    );
    asked.on("error", (error: NodeJS.ErrnoException) => {
      if (error.name === "TimeoutError" || error.name === "AbortError")
        failed(`no answer within ${timeoutMs / 1000} s`);
      else failed(`${socketPath} does not answer (${error.code ?? error.message})`);
    });
    asked.end();
  });
}
