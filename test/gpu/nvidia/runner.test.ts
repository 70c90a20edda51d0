import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, describe, expect, it } from "vitest";
import { classify, createSmi } from "../../../src/gpu/nvidia/runner.ts";
import { fixture, fixtureFiles, haveFixtures } from "../../support/fixtures.ts";

const folder = mkdtempSync(join(tmpdir(), "gpunode-smi-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let scripts = 0;
function script(body: string, mode = 0o755): string {
  const path = join(folder, `smi-${scripts++}`);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, mode);
  return path;
}

const alive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};
async function gone(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 100 && alive(pid); tries += 1) await sleep(20);
  return !alive(pid);
}
async function pidIn(file: string): Promise<number> {
  while (!existsSync(file) || readFileSync(file, "utf8").trim() === "") await sleep(10);
  return Number(readFileSync(file, "utf8"));
}

/** Words a recording's name begins with → what it must come to. */
const BY_FILE: readonly (readonly [RegExp, string])[] = [
  [/^failure\/no-driver\//, "no_driver"],
  [/^failure\/no-library\//, "no_library"],
  [/blocked-by-os/, "blocked"],
  [/driver-library-mismatch|smi-nvml-version-mismatch/, "driver_mismatch"],
  [/gpu-is-lost/, "gpu_lost"],
  [/insufficient-permissions/, "permission"],
  [/unknown-error/, "failed"],
  [/err-bad-field/, "bad_field"],
  [/err-bad-gpu-id|err-bad-uuid|zero-/, "no_devices"],
  [/err-bad-option/, "failed"],
];
const failures = [
  ...["no-driver", "no-library", "nvml-init-error-stub"].map((name) => `failure/${name}`),
  "real-binary-mock-nvml",
]
  .flatMap((dir) => fixtureFiles(dir, ".rc").map((path) => `${dir}/${basename(path, ".rc")}`))
  .flatMap((name) => {
    const expected = BY_FILE.find(([pattern]) => pattern.test(name))?.[1];
    return expected === undefined ? [] : [[name, expected] as const];
  });

describe.runIf(haveFixtures)("recorded failures", () => {
  it.each(failures)("%s is %s", (name, expected) => {
    const result = classify(fixture(`${name}.stdout`), Number(fixture(`${name}.rc`)));
    expect(result).toMatchObject({ ok: false, problem: { code: expected } });
  });

  it.each(
    fixtureFiles("real-binary-mock-nvml", ".rc")
      .map((path) => basename(path, ".rc"))
      .filter((name) => /^lost-gpu2-(query|qx|L)|^h100x8-healthy-|^err-no-format|^topo-m/.test(name)),
  )("%s is worth reading", (name) => {
    const stdout = fixture(`real-binary-mock-nvml/${name}.stdout`);
    expect(classify(stdout, Number(fixture(`real-binary-mock-nvml/${name}.rc`)))).toEqual({ ok: true, stdout });
  });

  it("rows behind the line of a lost GPU are worth reading, the line alone is not", () => {
    expect(classify(fixture("wild/gpu0-lost-query-gpu-other-rows-follow.txt"), 15).ok).toBe(true);
    expect(classify(fixture("wild/gpu-lost-old-spelling.txt"), 15)).toMatchObject({ problem: { code: "gpu_lost" } });
    expect(classify(fixture("wild/mismatch-535.161-rc18.txt"), 18)).toMatchObject({
      problem: { code: "driver_mismatch" },
    });
  });
});

describe("classify", () => {
  it("quotes what it does not know, without control characters", () => {
    const result = classify("\n\x1b[31mnew words\x07\n", 77, "/usr/bin/nvidia-smi");
    expect(result).toEqual({
      ok: false,
      problem: { code: "failed", message: "/usr/bin/nvidia-smi (exit 77) failed: ?[31mnew words?" },
    });
    expect(classify("", 1)).toMatchObject({ problem: { message: expect.stringContaining("no output") } });
  });

  it("a document counts whatever the exit code", () => {
    expect(classify("<nvidia_smi_log></nvidia_smi_log>", 15).ok).toBe(true);
  });
});

describe("createSmi", () => {
  it("tells a missing program, one that may not run, and one that is no program", async () => {
    expect(await createSmi({ path: join(folder, "none") }).run(["-L"])).toMatchObject({
      problem: { code: "not_found" },
    });
    const locked = createSmi({ path: script("echo", 0o644) });
    expect(await locked.run([])).toMatchObject({ problem: { code: "not_executable" } });
    expect(await createSmi({ path: folder }).run([])).toMatchObject({ problem: { code: "not_executable" } });
    const text = join(folder, "text");
    writeFileSync(text, "no program\n", { mode: 0o755 });
    expect(await createSmi({ path: text }).run([])).toMatchObject({ problem: { code: "failed" } });
    expect(await createSmi({ path: join(text, "smi") }).run([])).toMatchObject({ problem: { code: "not_found" } });
    expect((await createSmi({ path: "nul\0" }).run([])).ok).toBe(false);
  });

  it("goes on after a run that could not be started", async () => {
    const path = join(folder, "later");
    const smi = createSmi({ path });
    expect((await smi.run([])).ok).toBe(false);
    writeFileSync(path, "#!/bin/sh\necho there\n");
    chmodSync(path, 0o755);
    expect(await smi.run([])).toEqual({ ok: true, stdout: "there\n" });
  });

  it("one that hangs is cut and gone", async () => {
    const pidFile = join(folder, "hang.pid");
    const smi = createSmi({ path: script(`echo $$ > ${pidFile}; exec sleep 1000`) });
    const started = performance.now();
    expect(await smi.run([], { timeoutMs: 300 })).toMatchObject({ problem: { code: "timeout" } });
    expect(performance.now() - started).toBeLessThan(3000);
    expect(await gone(await pidIn(pidFile))).toBe(true);
  });

  it("one that is aborted is cut and gone; one that has not begun never runs", async () => {
    const pidFile = join(folder, "abort.pid");
    const smi = createSmi({ path: script(`echo $$ > ${pidFile}; exec sleep 1000`) });
    const stop = new AbortController();
    const first = smi.run([], { signal: stop.signal });
    const second = smi.run([], { signal: stop.signal });
    const pid = await pidIn(pidFile);
    stop.abort();
    expect((await first).ok).toBe(false);
    expect((await second).ok).toBe(false);
    expect(await gone(pid)).toBe(true);
    expect(await pidIn(pidFile)).toBe(pid);
  });

  it("more output than any nvidia-smi prints is cut", async () => {
    const pidFile = join(folder, "flood.pid");
    const smi = createSmi({ path: script(`echo $$ > ${pidFile}; exec yes`) });
    expect(await smi.run([])).toMatchObject({ problem: { code: "too_large" } });
    expect(await gone(await pidIn(pidFile))).toBe(true);
  });

  it("runs one at a time, in the C locale, with the arguments as they are", async () => {
    const log = join(folder, "turns");
    const smi = createSmi({
      path: script(`echo "begin" >> ${log}; sleep 0.1; echo "end" >> ${log}; echo "$LC_ALL|$LANG|$1|$2"`),
      env: { PATH: process.env.PATH, LC_ALL: "de_DE.UTF-8", LANG: "de_DE.UTF-8" },
    });
    const answers = await Promise.all([smi.run(["a b", "$(id)"]), smi.run([]), smi.run([])]);
    expect(answers[0]).toEqual({ ok: true, stdout: "C|de_DE.UTF-8|a b|$(id)\n" });
    expect(readFileSync(log, "utf8")).toBe("begin\nend\n".repeat(3));
  });

  it("what a script starts is gone with it when it is cut, and so is a stream's", async () => {
    for (const end of ["timeout", "abort"] as const) {
      const pidFile = join(folder, `grandchild-${end}.pid`);
      const smi = createSmi({ path: script(`sleep 1000 & echo $! > ${pidFile}; wait`) });
      const stop = new AbortController();
      const run = smi.run([], end === "timeout" ? { timeoutMs: 300 } : { signal: stop.signal });
      const pid = await pidIn(pidFile);
      if (end === "abort") stop.abort();
      expect((await run).ok).toBe(false);
      expect(await gone(pid)).toBe(true);
    }
  });

  it("paused it ends what runs, whatever that started, and starts nothing until it is resumed", async () => {
    const runFile = join(folder, "paused-run.pid");
    const streamFile = join(folder, "paused-stream.pid");
    const calls = join(folder, "paused-calls");
    const path = script(
      `echo "$1" >> ${calls}\ncase $1 in run) sleep 1000 & echo $! > ${runFile}; wait;; stream) sleep 1000 & echo $! > ${streamFile};; *) echo there;; esac`,
    );
    const smi = createSmi({ path });
    const run = smi.run(["run"]);
    const waiting = smi.run(["waiting"]);
    // This script ends by itself and leaves its child behind.
    smi.stream(["stream"]);
    const pids = [await pidIn(runFile), await pidIn(streamFile)];
    expect(await smi.pause()).toEqual([]);
    expect(pids.map(alive)).toEqual([false, false]);
    expect((await run).ok).toBe(false);
    expect(await waiting).toMatchObject({ problem: { code: "sampling_paused" } });
    expect(await smi.run(["more"])).toMatchObject({ problem: { code: "sampling_paused" } });
    expect(() => smi.stream(["more"])).toThrow(/paused/);
    expect(readFileSync(calls, "utf8").split("\n").toSorted()).toEqual(["", "run", "stream"]);
    smi.resume();
    expect(await smi.run(["again"])).toEqual({ ok: true, stdout: "there\n" });
  });
});
