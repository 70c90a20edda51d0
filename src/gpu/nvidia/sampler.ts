import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { GpuTelemetry } from "../../protocol/gpu.ts";
import { Bell } from "./bell.ts";
import { forgetFields, knownFields, type StreamField } from "./fields.ts";
import { endGroup } from "./process-group.ts";
import { classify, type Smi, type SmiProblem, type SmiProcessHandle, startProblem } from "./runner.ts";
import { readRow } from "./sample-row.ts";

/** What a stream is started for; another one needs another stream. */
export interface StreamShape {
  /** Grows when driver, GPUs or MIG instances have changed. */
  generation: number;
  /** Rows of a round, lost GPUs included. */
  rows: number;
  driverVersion?: string;
}

/** Who reads the GPUs in full and so knows what a stream will tell. */
export interface ShapeSource {
  /** Undefined where there is nothing to sample now: no GPU, no driver, paused. */
  readonly shape: StreamShape | undefined;
  /** Calls back after each successful read, and when `shape` has changed. */
  onShape(listener: () => void): Disposable;
}

export interface SampleOptions {
  /** At least 100, the fastest nvidia-smi goes without falling behind on eight GPUs. */
  intervalMs: number;
  signal: AbortSignal;
  /** Told when the stream breaks, and `undefined` when samples come again. */
  onProblem?: (problem: SmiProblem | undefined) => void;
  /** How much longer than three intervals a stream may be silent before it counts as dead; 5 s where absent. */
  silenceAllowanceMs?: number;
  /** Where absent, nvidia-smi is asked for the GPUs before each start. */
  shapes?: ShapeSource;
}

const INTERVAL_LEAST_MS = 100;
const RESTART_FIRST_MS = 1_000;
const RESTART_MOST_MS = 30_000;
/** nvidia-smi needs a moment to start. */
const SILENCE_ALLOWANCE_MS = 5_000;
/** A line longer than this is no row. */
const LINE_MAX = 64 * 1024;

/**
 * Samples of all GPUs, a complete set at a time, from one long-lived nvidia-smi. A set is yielded with its last row, not with
 * the first of the next. A stream that breaks or falls silent is started again, with growing pauses, or as soon as `shapes` tells of
 * a read that succeeded; one whose shape has changed is started anew at once. Ends with the signal; the process is gone then. Never
 * throws.
 */
export async function* samples(smi: Smi, options: SampleOptions): AsyncGenerator<GpuTelemetry[]> {
  const { signal, onProblem, shapes } = options;
  const bell = new Bell();
  let current: { generation: number | undefined; cut: AbortController } | undefined;
  using _listening = shapes?.onShape(() => {
    bell.ring();
    if (current !== undefined && current.generation !== shapes.shape?.generation) current.cut.abort();
  });
  let pauseMs = RESTART_FIRST_MS;
  let broken = false;
  while (!signal.aborted) {
    const cut = new AbortController();
    const shape = shapes === undefined ? await askedShape(smi, signal) : shapes.shape;
    if (signal.aborted) return;
    if (shape === undefined || shape.rows === 0) {
      await bell.wait(signal, shapes === undefined ? pauseMs : undefined);
      pauseMs = shapes === undefined ? Math.min(pauseMs * 2, RESTART_MOST_MS) : RESTART_FIRST_MS;
      continue;
    }
    current = { generation: shape.generation, cut };
    const until = AbortSignal.any([signal, cut.signal]);
    const fields = await knownFields(smi, { signal: until, driverVersion: shape.driverVersion });
    if (signal.aborted) return;
    for await (const round of oneStream(smi, { ...options, signal: until, fields, count: shape.rows })) {
      if ("problem" in round) {
        broken = true;
        if (round.problem.code === "bad_field") forgetFields(smi);
        onProblem?.(round.problem);
      } else {
        if (broken) onProblem?.(undefined);
        broken = false;
        pauseMs = RESTART_FIRST_MS;
        yield round.samples;
      }
    }
    if (cut.signal.aborted) continue;
    // What rang while the stream ran is no news of a driver that is back.
    bell.hush();
    await bell.wait(signal, pauseMs);
    pauseMs = Math.min(pauseMs * 2, RESTART_MOST_MS);
  }
}

/** The shape as `-L` tells it; no rows where there is nothing to sample. */
async function askedShape(smi: Smi, signal: AbortSignal): Promise<StreamShape> {
  const listing = await smi.run(["-L"], { signal });
  return { generation: 0, rows: listing.ok ? (listing.stdout.match(/^GPU \d+:/gm)?.length ?? 0) : 0 };
}

type Round = { samples: GpuTelemetry[] } | { problem: SmiProblem };

async function* oneStream(
  smi: Smi,
  options: SampleOptions & { fields: readonly StreamField[]; count: number },
): AsyncGenerator<Round> {
  const { signal, fields, count, silenceAllowanceMs = SILENCE_ALLOWANCE_MS } = options;
  const intervalMs = Math.max(INTERVAL_LEAST_MS, Math.round(options.intervalMs));
  const silenceMs = intervalMs * 3 + silenceAllowanceMs;
  if (signal.aborted) return;
  const columns = fields.map(({ field }) => field);
  let child: SmiProcessHandle;
  try {
    child = smi.stream([
      `--query-gpu=${fields.map(({ name }) => name).join(",")}`,
      "--format=csv,noheader,nounits",
      "-lms",
      String(intervalMs),
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
  const kill = () => {
    if (child.pid !== undefined) endGroup(child.pid);
    // A process stuck in the driver does not die: it is left behind.
    child.stdout.destroy();
  };
  const watchdog = setTimeout(() => {
    silent = true;
    kill();
  }, silenceMs);
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();
  const said: string[] = [];
  let round: { rows: number; samples: GpuTelemetry[]; lastIndex: number } = { rows: 0, samples: [], lastIndex: -1 };
  try {
    for await (const lines of linesOf(child.stdout)) {
      for (const line of lines) {
        const row = readRow(line, columns);
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
    }
    if (signal.aborted) return;
    if (startError !== undefined) yield { problem: startProblem(smi.path, startError).problem };
    else yield { problem: problemOf(smi, said, { ...(silent ? { silenceMs } : {}), exitCode: child.exitCode }) };
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", kill);
    kill();
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

/** Whole lines of a stream, those of a block together, however the blocks are cut. One that never ends is dropped. */
async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string[]> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const chunk of stream) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > LINE_MAX) rest = "";
      yield lines.filter((line) => line.trim() !== "");
    }
  } catch {
    // Cut by us, or broken with the process: the end either way.
  }
}
