import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StringDecoder } from "node:string_decoder";
import { linkedController } from "./abort.ts";
import type { ContainerState, Engine, LogChunk } from "./needs.ts";
import type { WorkloadRecord } from "./record.ts";

/** Of a container that is removed, so much of the end of its output stays readable. */
const KEEP_LINES = 10_000;
const KEEP_BYTES = 1024 * 1024;
const READ_WITHIN_MS = 30_000;

/**
 * What ended workloads wrote. A container is removed once it has ended; its last output (10,000 lines, 1 MiB at most)
 * stays in one file each, so that "why did it fail" still has an answer.
 */
export interface KeptLogs {
  keep(record: WorkloadRecord, container: ContainerState, signal: AbortSignal): Promise<void>;
  /** [] where nothing was kept. */
  read(record: WorkloadRecord, tail: number | undefined): Promise<LogChunk[]>;
  forget(record: WorkloadRecord): Promise<void>;
}

/** Keeps logs under `dir`, which is made where it is missing (mode 0700). */
export function keptLogsIn(dir: string, engine: Engine): KeptLogs {
  const fileOf = (record: WorkloadRecord) => join(dir, `${record.id}-${record.generation}.jsonl`);
  return {
    async keep(record, container, signal) {
      const lines = await lastLines(engine, container.id, signal);
      if (lines.length === 0) return;
      await mkdir(dir, { recursive: true, mode: 0o700 });
      // Whole or not at all: a crash in between must not leave half a file.
      await writeFile(`${fileOf(record)}.new`, `${lines.join("\n")}\n`, { mode: 0o600 });
      await rename(`${fileOf(record)}.new`, fileOf(record));
    },
    async read(record, tail) {
      let text: string;
      try {
        text = await readFile(fileOf(record), "utf8");
      } catch {
        return [];
      }
      const lines = text.split("\n").filter((line) => line !== "");
      return (tail === undefined ? lines : tail === 0 ? [] : lines.slice(-tail)).flatMap(readLine);
    },
    async forget(record) {
      await rm(fileOf(record), { force: true });
    },
  };
}

/** A damaged line is left out; the others are still worth reading. */
function readLine(line: string): LogChunk[] {
  try {
    const { stream, data } = JSON.parse(line) as { stream?: unknown; data?: unknown };
    const known = (stream === "stdout" || stream === "stderr") && typeof data === "string";
    return known ? [{ stream, data: Buffer.from(data, "utf8") }] : [];
  } catch {
    return [];
  }
}

/** The container's last lines as JSON lines, the newest kept where there are too many. */
async function lastLines(engine: Engine, containerId: string, leaving: AbortSignal): Promise<string[]> {
  const split = { stdout: lineSplitter("stdout"), stderr: lineSplitter("stderr") };
  const lines: string[] = [];
  let bytes = 0;
  const add = (line: string) => {
    lines.push(line);
    bytes += line.length;
    while (bytes > KEEP_BYTES && lines.length > 1) bytes -= lines.shift()?.length ?? 0;
  };
  const { signal, unlink } = linkedController(leaving, READ_WITHIN_MS);
  try {
    for await (const { stream, data } of engine.logs(containerId, { follow: false, tail: KEEP_LINES, signal })) {
      for (const line of split[stream].push(data)) add(line);
    }
  } finally {
    unlink();
  }
  for (const line of [...split.stdout.end(), ...split.stderr.end()]) add(line);
  return lines;
}

function lineSplitter(stream: LogChunk["stream"]) {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  const take = (text: string, final: boolean): string[] => {
    const parts = (rest + text).split(/(?<=\n)/);
    const last = parts.at(-1) ?? "";
    // A line without an end is held back, but not for ever.
    rest = final || last.endsWith("\n") || last.length > 64 * 1024 ? "" : (parts.pop() ?? "");
    return parts.filter((part) => part !== "").map((data) => JSON.stringify({ stream, data }));
  };
  return { push: (data: Buffer) => take(decoder.write(data), false), end: () => take(decoder.end(), true) };
}
