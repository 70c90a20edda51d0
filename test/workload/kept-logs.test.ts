import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import { type KeptLogs, keptLogsIn } from "../../src/workload/kept-logs.ts";
import type { ContainerState, Engine, LogChunk } from "../../src/workload/needs.ts";
import { StoredWorkload, type WorkloadRecord } from "../../src/workload/record.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "gpunode-kept-"));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

function record(id = "w"): WorkloadRecord {
  const spec = StoredWorkload.parse(Workload.parse({ id, generation: 1, image: "a" }));
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 1 };
  return { id, generation: 1, spec, state: "failed", ...base };
}

const container: ContainerState = {
  id: "c",
  name: "gpunode-w-1",
  labels: {},
  status: "exited",
  pid: 0,
  exitCode: 0,
  oomKilled: false,
  error: "",
  gpus: [],
};

/** Kept logs of a container that wrote these chunks. */
function keptOf(...chunks: (readonly [LogChunk["stream"], string | Buffer])[]): KeptLogs {
  const engine: Pick<Engine, "logs"> = {
    async *logs() {
      await Promise.resolve();
      for (const [stream, data] of chunks) yield { stream, data: Buffer.from(data) };
    },
  };
  return keptLogsIn(join(dir, "logs"), engine as Engine);
}

async function readBack(kept: KeptLogs, tail?: number): Promise<[string, string][]> {
  return (await kept.read(record(), tail)).map(({ stream, data }) => [stream, data.toString()]);
}

describe("the output of a container that is gone", () => {
  it("comes back line by line, each on its stream", async () => {
    const kept = keptOf(["stdout", "one\ntw"], ["stderr", "bad\n"], ["stdout", "o\nthr"], ["stdout", "ee"]);
    await kept.keep(record(), container, new AbortController().signal);
    expect(await readBack(kept)).toEqual([
      ["stdout", "one\n"],
      ["stderr", "bad\n"],
      ["stdout", "two\n"],
      ["stdout", "three"],
    ]);
    expect(await readBack(kept, 2)).toEqual([
      ["stdout", "two\n"],
      ["stdout", "three"],
    ]);
    expect(await readBack(kept, 0)).toEqual([]);
    expect(await readBack(kept, 99)).toHaveLength(4);
  });

  it("keeps characters whole that were cut between two chunks", async () => {
    const bytes = Buffer.from("grüße 🚀\n");
    const kept = keptOf(...Array.from(bytes, (byte) => ["stdout", Buffer.from([byte])] as const));
    await kept.keep(record(), container, new AbortController().signal);
    expect(await readBack(kept)).toEqual([["stdout", "grüße 🚀\n"]]);
  });

  it("keeps carriage returns, empty lines and quotes as they were", async () => {
    const text = '10%\r20%\r\n\n"quoted"\\\n\u0000\n';
    const kept = keptOf(["stdout", text]);
    await kept.keep(record(), container, new AbortController().signal);
    expect((await readBack(kept)).map(([, data]) => data).join("")).toBe(text);
  });

  it("is kept to the last MiB, the newest lines", async () => {
    const lines = Array.from({ length: 3000 }, (_, n) => `${n} ${"x".repeat(1000)}\n`);
    const kept = keptOf(...lines.map((line) => ["stdout", line] as const));
    await kept.keep(record(), container, new AbortController().signal);
    const back = await readBack(kept);
    expect(back.at(-1)?.[1]).toBe(lines.at(-1));
    expect(back.length).toBeGreaterThan(900);
    const [file = ""] = await readdir(join(dir, "logs"));
    expect((await stat(join(dir, "logs", file))).size).toBeLessThan(1.1 * 1024 * 1024);
  });

  it("is kept also where it never ends a line", async () => {
    const kept = keptOf(...Array.from({ length: 300 }, () => ["stdout", "y".repeat(10_000)] as const));
    await kept.keep(record(), container, new AbortController().signal);
    const text = (await readBack(kept)).map(([, data]) => data).join("");
    expect(text.length).toBeGreaterThan(900_000);
    expect(text.length).toBeLessThanOrEqual(1024 * 1024);
  });

  it("is for the agent's user alone", async () => {
    const kept = keptOf(["stdout", "x\n"]);
    await kept.keep(record(), container, new AbortController().signal);
    const [file = ""] = await readdir(join(dir, "logs"));
    expect((await stat(join(dir, "logs", file))).mode & 0o777).toBe(0o600);
    expect((await stat(join(dir, "logs"))).mode & 0o777).toBe(0o700);
  });

  it("makes no file where it wrote nothing", async () => {
    const kept = keptOf();
    await kept.keep(record(), container, new AbortController().signal);
    expect(await readBack(kept)).toEqual([]);
    await expect(readdir(join(dir, "logs"))).rejects.toThrow(/ENOENT/);
  });

  it("is gone when forgotten, and forgetting twice is no error", async () => {
    const kept = keptOf(["stdout", "x\n"]);
    await kept.keep(record(), container, new AbortController().signal);
    await kept.forget(record());
    await kept.forget(record());
    expect(await readBack(kept)).toEqual([]);
  });

  it("is read as far as it goes where the machine went down while it was written", async () => {
    const kept = keptOf(["stdout", "one\ntwo\n"]);
    await kept.keep(record(), container, new AbortController().signal);
    const [file = ""] = await readdir(join(dir, "logs"));
    const whole = await readFile(join(dir, "logs", file), "utf8");
    await writeFile(join(dir, "logs", file), whole.slice(0, -9));
    expect(await readBack(kept)).toEqual([["stdout", "one\n"]]);
  });
});
