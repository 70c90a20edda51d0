import { fork } from "node:child_process";
import { once } from "node:events";
import type { FuzzOptions, TargetResult } from "./fuzz.ts";

/** A process that tells nothing for so long hangs; what takes 250 ms of CPU is told long before. */
const SILENCE_MS = 60_000;
/** What takes more memory than this dies, and is told. */
const HEAP_MIB = 1024;

export interface GroupsOptions extends Omit<FuzzOptions, "onInput"> {
  groups: readonly string[];
  /** Processes at once. */
  processes: number;
  onResult?: (result: TargetResult) => void;
}

/** Runs groups in processes of their own. A hang and the death of a process are failures like others. */
export async function runGroups({ groups, processes, onResult, ...options }: GroupsOptions): Promise<TargetResult[]> {
  const waiting = [...groups];
  const all: TargetResult[] = [];
  const next = async () => {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      const results = await runGroup(group, options);
      for (const result of results) onResult?.(result);
      all.push(...results);
    }
  };
  await Promise.all(Array.from({ length: processes }, next));
  return all;
}

async function runGroup(group: string, options: Omit<FuzzOptions, "onInput">): Promise<TargetResult[]> {
  const child = fork(new URL("worker.ts", import.meta.url), [JSON.stringify({ group, ...options })], {
    execArgv: ["--expose-gc", `--max-old-space-size=${HEAP_MIB}`, "--disable-warning=ExperimentalWarning"],
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4000);
  });
  const { promise, resolve } = Promise.withResolvers<TargetResult[]>();
  let last = { target: group, at: 0 };
  const failed = (error: string) =>
    resolve([{ target: last.target, inputs: 0, ms: 0, slowestMs: 0, failures: [{ ...last, error, input: "" }] }]);
  const watchdog = setTimeout(() => failed("hangs at this input, or one of those of the next 50 ms"), SILENCE_MS);
  child.on("message", (message: { results: TargetResult[] } | { target: string; at: number }) => {
    watchdog.refresh();
    if ("results" in message) resolve(message.results);
    else last = message;
  });
  const gone = once(child, "close");
  child.once("close", (code) => failed(`the process ended with ${code}: ${said}`));
  const results = await promise;
  clearTimeout(watchdog);
  // One that is through leaves by itself; what it left open would be a leak of the harness.
  if (results.some(({ inputs }) => inputs === 0)) child.kill("SIGKILL");
  await gone;
  return results;
}
