import { Draw } from "./draw.ts";
import { replayed, shrunk, shrunkText } from "./shrink.ts";
import type { OpenGroup, Target } from "./target.ts";

/** No input may keep the processor for longer than this. */
const CPU_LIMIT_MS = 250;
/** The process may grow by so much over all inputs of a target, once what is garbage is gone. */
const GROWTH_LIMIT_BYTES = 512 * 1024 * 1024;
const SHRINK_TRIES = 2000;
/** Making an input smaller ends then at the latest. */
const SHRINK_MS = 20_000;

export interface Failure {
  target: string;
  /** Which input of the target it was. */
  at: number;
  error: string;
  /** As small as it was made. */
  input: string;
}

export interface TargetResult {
  target: string;
  inputs: number;
  ms: number;
  /** The longest that one input took, on the clock on the wall. */
  slowestMs: number;
  failures: Failure[];
}

export interface FuzzOptions {
  seed: number;
  /** 1 is a whole run, of a million inputs over all targets. */
  scale: number;
  /** Only targets whose name contains this. */
  only?: string;
  /** Runs this input of the targets, and no other. */
  at?: number;
  /** Ends each target after so long, with however many inputs it had. */
  budgetMs?: number;
  /** Told before each input, so that somebody else can tell which one hangs. */
  onInput?: (target: string, at: number) => void;
}

/** Runs the targets of a group. Never rejects for what a target does; failures are in the results. */
export async function fuzzGroup(open: OpenGroup, options: FuzzOptions): Promise<TargetResult[]> {
  await using group = await open();
  const results: TargetResult[] = [];
  for (const target of group.targets) {
    if (options.only === undefined || target.name.includes(options.only))
      results.push(await fuzzTarget(target, options));
  }
  return results;
}

async function fuzzTarget(target: Target, options: FuzzOptions): Promise<TargetResult> {
  const { seed, at: onlyAt, budgetMs = Number.POSITIVE_INFINITY, onInput } = options;
  const most = Math.max(20, Math.round(options.scale * target.inputs));
  const result: TargetResult = { target: target.name, inputs: 0, ms: 0, slowestMs: 0, failures: [] };
  const name = numberOf(target.name);
  const began = performance.now();
  const grownFrom = memory();
  for (let at = onlyAt ?? 0; result.inputs < most && performance.now() - began < budgetMs; at += 1) {
    onInput?.(target.name, at);
    const draw = Draw.seeded(seed, name, at);
    const input = target.make(draw);
    const started = performance.now();
    const error = await trial(target, input);
    const tookMs = performance.now() - started;
    result.slowestMs = Math.max(result.slowestMs, tookMs);
    result.inputs += target.counts?.(input) ?? 1;
    if (error !== undefined) {
      result.failures.push(await explained(target, at, { made: draw.made, error }));
    } else if (tookMs > CPU_LIMIT_MS && (await isSlow(target, input))) {
      result.failures.push({
        target: target.name,
        at,
        error: `takes over ${CPU_LIMIT_MS} ms of CPU`,
        input: shown(input),
      });
    }
    // The next would most likely be the same fault again.
    if (result.failures.length > 0 || onlyAt !== undefined) break;
  }
  const grownBy = memory() - grownFrom;
  if (grownBy > GROWTH_LIMIT_BYTES) {
    const error = `the process has grown by ${Math.round(grownBy / 1024 / 1024)} MiB over its inputs`;
    result.failures.push({ target: target.name, at: -1, error, input: "" });
  }
  result.ms = performance.now() - began;
  return result;
}

/** What went wrong with an input, also in what it left running: a rejection nobody handles, a warning of Node's. */
async function trial(target: Target, input: unknown): Promise<unknown> {
  const stray: unknown[] = [];
  const note = (error: unknown) => void stray.push(error);
  process.on("unhandledRejection", note).on("uncaughtException", note).on("warning", note);
  try {
    const done = target.check(input);
    // Only what waits for something can leave something behind: pure targets are spared the turn of the loop.
    if (done !== undefined) {
      await done;
      await new Promise(setImmediate);
    }
    return stray[0];
  } catch (error) {
    return error ?? new Error("something was thrown that is undefined");
  } finally {
    process.off("unhandledRejection", note).off("uncaughtException", note).off("warning", note);
  }
}

/** The clock on the wall counts other processes too: what took long is tried again, by the processor's own count. */
async function isSlow(target: Target, input: unknown): Promise<boolean> {
  for (let time = 0; time < 3; time += 1) {
    const before = process.threadCpuUsage();
    await trial(target, input);
    const { user, system } = process.threadCpuUsage(before);
    if ((user + system) / 1000 <= CPU_LIMIT_MS) return false;
  }
  return true;
}

async function explained(
  target: Target,
  at: number,
  { made, error: first }: { made: readonly number[]; error: unknown },
): Promise<Failure> {
  const until = performance.now() + SHRINK_MS;
  const isFailing = async (candidate: unknown) =>
    performance.now() < until && (await trial(target, candidate)) !== undefined;
  const fails = (choices: readonly number[]) => isFailing(replayed((draw) => target.make(draw), choices));
  const least = await shrunk(made, fails, SHRINK_TRIES);
  const input = await withShortTexts(
    replayed((draw) => target.make(draw), least),
    isFailing,
  );
  const error = await trial(target, input);
  const words = error === undefined ? `it failed once, and not again: ${inWords(first)}` : inWords(error);
  return { target: target.name, at, error: words, input: shown(input) };
}

/** The input with its texts, and those right below it, as short as they can be made. */
async function withShortTexts(input: unknown, fails: (input: unknown) => Promise<boolean>): Promise<unknown> {
  if (typeof input === "string") return await shrunkText(input, fails, SHRINK_TRIES);
  if (typeof input !== "object" || input === null || Buffer.isBuffer(input)) return input;
  let least: Record<string, unknown> = { ...input };
  const whole = (parts: Record<string, unknown>) => (Array.isArray(input) ? Object.values(parts) : parts);
  for (const [key, part] of Object.entries(least)) {
    if (typeof part !== "string") continue;
    const short = await shrunkText(part, (text) => fails(whole({ ...least, [key]: text })), SHRINK_TRIES);
    least = { ...least, [key]: short };
  }
  return whole(least);
}

function inWords(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** As a regression test would write it, where that is possible. */
function shown(input: unknown): string {
  const text = JSON.stringify(input, (_key, value: unknown) =>
    Buffer.isBuffer(value) ? `base64:${value.toString("base64")}` : value instanceof Map ? [...value] : value,
  );
  return text === undefined ? String(input) : text.length > 20_000 ? `${text.slice(0, 20_000)}…` : text;
}

/** What the process holds once its garbage is gone. */
function memory(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

function numberOf(text: string): number {
  return [...text].reduce((hash, char) => (Math.imul(hash, 31) + (char.codePointAt(0) ?? 0)) >>> 0, 7);
}
