import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { type KernelMessage, kernelMessages } from "../../src/host/kernel-log.ts";

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-kmsg-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Follows a log until the test is over; descriptors on it are gone then. */
function follow(path: string, mentioning?: readonly string[]) {
  const stop = new AbortController();
  const seen: KernelMessage[] = [];
  const problems: (string | undefined)[] = [];
  const done = (async () => {
    const onProblem = (problem: { message: string } | undefined) => problems.push(problem?.message);
    const how = { path, signal: stop.signal, pollMs: 10, onProblem, ...(mentioning !== undefined && { mentioning }) };
    for await (const message of kernelMessages(how)) seen.push(message);
  })();
  const end = async () => {
    stop.abort();
    await done;
    const open = readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return [];
      }
    });
    expect(open).not.toContain(path);
  };
  onTestFinished(end);
  return { seen, problems, end, texts: () => seen.map(({ text }) => text) };
}

const isRoot = process.geteuid?.() === 0;

describe("a file of lines", () => {
  it("is read from its beginning and followed as it grows, whole lines at a time", async () => {
    const path = join(scratch(), "kern.log");
    writeFileSync(path, "one\ntwo\nthr");
    const { texts } = follow(path);
    await expect.poll(texts).toEqual(["one", "two"]);
    appendFileSync(path, "ee\n");
    await expect.poll(texts).toEqual(["one", "two", "three"]);
  });

  it("tells only what mentions one of the words, where there are some", async () => {
    const path = join(scratch(), "kern.log");
    writeFileSync(path, "usb 1-1: new device\nNVRM: Xid\n");
    const { texts } = follow(path, ["NVRM", "nvidia"]);
    await expect.poll(texts).toEqual(["NVRM: Xid"]);
    appendFileSync(path, "eth0: up\nnvidia-nvswitch3: SXid\n");
    await expect.poll(texts).toEqual(["NVRM: Xid", "nvidia-nvswitch3: SXid"]);
  });

  it("keeps characters whole that lie across two blocks", async () => {
    const path = join(scratch(), "kern.log");
    const lines = Array.from({ length: 40 }, (_, at) => `${at}${"é🜁".repeat(1500)}`);
    writeFileSync(path, lines.map((line) => `${line}\n`).join(""));
    const { texts } = follow(path);
    await expect.poll(() => texts().length).toBe(lines.length);
    expect(texts()).toEqual(lines);
  });

  it("that is cut short is read again", async () => {
    const path = join(scratch(), "kern.log");
    writeFileSync(path, "a long first line\n");
    const { texts } = follow(path);
    await expect.poll(texts).toEqual(["a long first line"]);
    truncateSync(path);
    appendFileSync(path, "new\n");
    await expect.poll(texts).toEqual(["a long first line", "new"]);
  });

  it("that is rotated away is followed under its name, and what it held at the start tells no time", async () => {
    const path = join(scratch(), "kern.log");
    writeFileSync(path, "old\n");
    const { seen, texts } = follow(path);
    await expect.poll(texts).toEqual(["old"]);
    renameSync(path, `${path}.1`);
    writeFileSync(path, "new\n");
    await expect.poll(texts).toEqual(["old", "new"]);
    expect(seen[0]?.atMs).toBe(0);
    expect(Math.abs((seen[1]?.atMs ?? 0) - Date.now())).toBeLessThan(10_000);
  });

  it("of any size costs no more than a line of memory, and hostile bytes are text", async () => {
    const path = join(scratch(), "kern.log");
    writeFileSync(path, Buffer.concat([Buffer.alloc(3_000_000, "x"), Buffer.from("\nend \xff\u0000\n", "latin1")]));
    const { seen } = follow(path);
    await expect.poll(() => seen.length).toBeGreaterThan(0);
    expect(seen.at(-1)?.text).toMatch(/^end /);
  });
});

it("that is not there is told once, with what to do", async () => {
  const { problems, end } = follow(join(scratch(), "none"));
  await expect.poll(() => problems).toHaveLength(1);
  expect(problems[0]).toMatch(/none cannot be read \(ENOENT\).*set nvidia\.kernel_log/);
  await end();
  expect(problems).toHaveLength(1);
});

describe.runIf(isRoot)("/dev/kmsg", () => {
  it("tells what the kernel still holds and what is written now, with its time", async () => {
    const { seen, problems } = follow("/dev/kmsg");
    const mark = `gpunode test ${process.pid} ${Math.floor(performance.now())}`;
    try {
      appendFileSync("/dev/kmsg", `${mark}\n`);
    } catch {
      // A kernel that lets nobody write to its log: what it says itself is enough.
      await expect.poll(() => seen.length + problems.length).toBeGreaterThan(0);
      return;
    }
    await expect.poll(() => seen.find(({ text }) => text === mark) !== undefined || problems.length > 0).toBe(true);
    const written = seen.find(({ text }) => text === mark);
    if (written !== undefined) expect(Math.abs(written.atMs - Date.now())).toBeLessThan(10_000);
  });
});
