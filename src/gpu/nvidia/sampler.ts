import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { GpuTelemetry } from "../../protocol/gpu.ts";
import { type Field, knownFields } from "./fields.ts";
import { classify, type Smi, type SmiProblem, startProblem } from "./runner.ts";
import { readRow } from "./sample-row.ts";

export interface SampleOptions {
  intervalMs: number;
  signal: AbortSignal;
  /** Told when the stream breaks, and `undefined` when samples come again. */
  onProblem?: (problem: SmiProblem | undefined) => void;
  /** How much longer than three intervals a stream may be silent before it counts as dead; 5 s where absent. */
  silenceAllowanceMs?: number;
}

const RESTART_FIRST_MS = 1_000;
const RESTART_MOST_MS = 30_000;
/** nvidia-smi needs a moment to start. */
const SILENCE_ALLOWANCE_MS = 5_000;
/** A line longer than this is no row. */
const LINE_MAX = 64 * 1024;

/**
 * Samples of all GPUs, a complete set at a time, from one long-lived nvidia-smi. A set is yielded with its last row, not with
 * the first of the next. A stream that breaks or falls silent is started again, with growing pauses. Ends with the signal;
 * the process is gone then. Never throws.
 */
export async function* samples(smi: Smi, options: SampleOptions): AsyncGenerator<GpuTelemetry[]> {
  const { signal, onProblem } = options;
  let pauseMs = RESTART_FIRST_MS;
  while (!signal.aborted) {
    const fields = await knownFields(smi, signal);
    const count = await countGpus(smi, signal);
    if (signal.aborted) return;
    if (count !== 0) {
      for await (const round of oneStream(smi, { ...options, fields, count })) {
        if ("problem" in round) onProblem?.(round.problem);
        else {
          if (pauseMs > RESTART_FIRST_MS) onProblem?.(undefined);
          pauseMs = RESTART_FIRST_MS;
          yield round.samples;
        }
      }
    }
    await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
    pauseMs = Math.min(pauseMs * 2, RESTART_MOST_MS);
  }
}

/** Rows to expect in a round, lost GPUs included; 0 where there is nothing to sample. */
async function countGpus(smi: Smi, signal: AbortSignal): Promise<number> {
  const listing = await smi.run(["-L"], { signal });
  return listing.ok ? (listing.stdout.match(/^GPU \d+:/gm)?.length ?? 0) : 0;
}

type Round = { samples: GpuTelemetry[] } | { problem: SmiProblem };

async function* oneStream(
  smi: Smi,
  options: SampleOptions & { fields: readonly Field[]; count: number },
): AsyncGenerator<Round> {
  const { intervalMs, signal, fields, count, silenceAllowanceMs = SILENCE_ALLOWANCE_MS } = options;
  const silenceMs = intervalMs * 3 + silenceAllowanceMs;
  let child: ReturnType<Smi["stream"]>;
  try {
    child = smi.stream([
      `--query-gpu=${fields.join(",")}`,
      "--format=csv,noheader,nounits",
      "-lms",
      String(Math.max(100, Math.round(intervalMs))),
    ]);
  } catch (error) {
    yield { problem: startProblem(smi.path, error as NodeJS.ErrnoException).problem };
    return;
  }
  const failure = Promise.withResolvers<void>();
  let startError: NodeJS.ErrnoException | undefined;
  child.once("error", (error) => {
    startError = error;
    failure.resolve();
  });
  let silent = false;
  const kill = () => child.kill("SIGKILL");
  const watchdog = setTimeout(() => {
    silent = true;
    kill();
    // A process stuck in the driver does not die: it is left behind.
    child.stdout.destroy();
  }, silenceMs);
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();
  const said: string[] = [];
  let round: { rows: number; samples: GpuTelemetry[]; lastIndex: number } = { rows: 0, samples: [], lastIndex: -1 };
  try {
    for await (const line of linesOf(child.stdout)) {
      const row = readRow(line, fields);
      if (row === undefined) {
        if (said.length < 20) said.push(line);
        continue;
      }
      watchdog.refresh();
      // A new round although the one before was short: a row of it was unreadable. What there is of it is told.
      const index = row.kind === "sample" ? row.index : undefined;
      if (index !== undefined && index <= round.lastIndex) {
        if (round.samples.length > 0) yield { samples: round.samples };
        round = { rows: 0, samples: [], lastIndex: -1 };
      }
      round.rows += 1;
      if (row.kind === "sample") round.samples.push(row.sample);
      if (index !== undefined) round.lastIndex = index;
      if (round.rows >= count) {
        yield { samples: round.samples };
        round = { rows: 0, samples: [], lastIndex: -1 };
      }
    }
    if (signal.aborted) return;
    if (startError !== undefined) yield { problem: startProblem(smi.path, startError).problem };
    else yield { problem: problemOf(smi, said, { ...(silent ? { silenceMs } : {}), exitCode: child.exitCode }) };
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", kill);
    kill();
    child.stdout.destroy();
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      const patience = new AbortController();
      await Promise.race([
        once(child, "exit").catch(() => undefined),
        failure.promise,
        sleep(1000, undefined, { signal: patience.signal }).catch(() => undefined),
      ]);
      patience.abort();
    }
    child.unref();
  }
}

function problemOf(
  smi: Smi,
  said: readonly string[],
  { silenceMs, exitCode }: { silenceMs?: number; exitCode: number | null },
): SmiProblem {
  if (silenceMs !== undefined) {
    return {
      code: "timeout",
      message: `${smi.path} printed no sample for ${silenceMs / 1000} s; it is started again`,
    };
  }
  const result = classify(said.join("\n"), exitCode === null || exitCode === 0 ? 1 : exitCode, smi.path);
  return result.ok
    ? { code: "failed", message: `${smi.path} ended its stream of samples; it is started again` }
    : result.problem;
}

/** Lines of a stream, however its blocks are cut. One that never ends is dropped. */
async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const chunk of stream) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > LINE_MAX) rest = "";
      yield* lines.filter((line) => line.trim() !== "");
    }
  } catch {
    // Cut by us, or broken with the process: the end either way.
  }
}
