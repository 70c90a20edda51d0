import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import { noticeText, type TenantNotice } from "../../src/workload/tenant-notice.ts";

const example = resolve(import.meta.dirname, "../../examples/checkpointing");
const havePython = spawnSync("python3", ["-c", ""]).status === 0;

it("the example's workload is one, and asks for the signal it handles", () => {
  const written = JSON.parse(readFileSync(join(example, "workload.json"), "utf8")) as object;
  const workload = Workload.parse({ ...written, generation: 1 });
  expect(workload).toMatchObject({ stop: { noticeSignal: "SIGUSR1" }, caches: [{ path: "/checkpoints" }] });
  // Nothing in it is misspelt: what is not known would have been left out.
  expect(workload).toMatchObject(written);
});

describe.runIf(havePython)("the example that checkpoints", { timeout: 60_000 }, () => {
  let dir: string;
  let child: ChildProcess | undefined;
  let said = "";
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "gpunode-example-"));
  });
  afterEach(async () => {
    await end("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  });

  const file = () => join(dir, "preemption.json");

  function start(env: NodeJS.ProcessEnv): void {
    said = "";
    child = spawn("python3", [join(example, "train.py")], {
      env: { ...process.env, CHECKPOINT_DIR: dir, GPUNODE_PREEMPTION_FILE: file(), ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
  }

  async function end(signal?: NodeJS.Signals): Promise<number | null> {
    if (child === undefined) return null;
    const running = child;
    child = undefined;
    const closed = running.exitCode === null && running.signalCode === null ? once(running, "close") : undefined;
    if (signal !== undefined) running.kill(signal);
    await closed;
    return running.exitCode;
  }

  async function says(words: string): Promise<void> {
    const deadline = performance.now() + 30_000;
    while (!said.includes(words)) {
      if (performance.now() > deadline) throw new Error(`it did not say "${words}" but: ${said}`);
      await sleep(10);
    }
  }

  const give = (notice: Partial<TenantNotice>) => {
    const at = Date.parse("2026-01-31T12:00:00Z");
    writeFileSync(file(), noticeText({ phase: "notice", cause: "owner", at, ...notice }));
  };
  const savedStep = () => Number(/saved step (\d+)\n$/.exec(said)?.[1]);
  const forEver = { STEPS: "1000000000", SAVE_EVERY: "1000000000", STEP_SECONDS: "0.002" };

  it("saves when notice is given, goes on, saves when it is stopped, and takes up from there", async () => {
    start(forEver);
    await sleep(300);
    expect(said).toBe("");
    give({ deadline: Date.parse("2026-01-31T12:01:00Z") });
    await says("saved step ");
    expect(said).toContain("notice: owner, until 2026-01-31T12:01:00.000Z\nsaved step ");
    child?.kill("SIGUSR1");
    give({ phase: "withdrawn" });
    await says("the notice was withdrawn");
    expect(await end("SIGTERM")).toBe(143);
    const stopped = savedStep();
    expect(stopped).toBeGreaterThan(1);
    rmSync(file());
    start({ STEPS: String(stopped + 5) });
    expect(await end()).toBe(0);
    expect(said).toBe(`going on from step ${stopped}\nsaved step ${stopped + 5}\ndone\n`);
  });

  it("killed in the middle of its saves has a whole checkpoint, and never an older one than before", async () => {
    let newest = 0;
    for (let round = 0; round < 8; round++) {
      start({ ...forEver, SAVE_EVERY: "1", STEP_SECONDS: "0" });
      await says("saved step ");
      await sleep(7 * round);
      await end("SIGKILL");
      const from = Number(/^going on from step (\d+)$/m.exec(said)?.[1] ?? 0);
      expect(from).toBeGreaterThanOrEqual(newest);
      newest = Math.max(newest, ...[...said.matchAll(/^saved step (\d+)$/gm)].map(([, step]) => Number(step)));
    }
    expect(newest).toBeGreaterThan(8);
  });
});
