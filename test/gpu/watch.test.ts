import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type GpuWatch, watchGpus } from "../../src/gpu/watch.ts";
import type { GpuTelemetry } from "../../src/protocol/gpu.ts";
import { documentOf, rowsOf, type ScriptedSmi, scriptedSmi } from "./nvidia/scripted.ts";

const A = { uuid: "GPU-a" };
const B = { uuid: "GPU-b" };
const noDriver = {
  text: "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
  code: 9,
};

async function until(condition: () => boolean, patienceMs = 10_000): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error("it has not come in time");
    await sleep(10);
  }
}

const codes = (watch: GpuWatch) => watch.inventory.problems.map(({ code }) => code);
const uuids = (watch: GpuWatch) => watch.inventory.gpus.map(({ uuid }) => uuid);

function scripted(gpus: readonly { uuid: string; usedMiB?: number }[]): ScriptedSmi {
  const script = scriptedSmi();
  script.says({ xml: documentOf(gpus), rows: rowsOf(gpus) });
  return script;
}

/** Reads the watch's stream beside the test; disposing ends it. */
function listen(watch: GpuWatch) {
  const stop = new AbortController();
  const sets: GpuTelemetry[][] = [];
  const over = (async () => {
    for await (const set of watch.samples({ intervalMs: 100, signal: stop.signal })) sets.push(set);
  })();
  return {
    sets,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await over;
    },
  };
}

describe.concurrent("watchGpus", () => {
  it("what was asked once is known to the next daemon: for this boot, this driver and these GPUs", async () => {
    let text: string | undefined;
    const kept = (bootId: string) => ({
      bootId,
      get: () => text,
      set: (next: string) => {
        text = next;
      },
    });
    const asked = async (script: ScriptedSmi, bootId: string) => {
      const runs: string[] = [];
      const smi = {
        ...script.smi,
        run: ((args, how) => {
          const [about = ""] = args;
          runs.push(about);
          if (about === "topo")
            return Promise.resolve({ ok: true, stdout: "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n" });
          if (about.endsWith("compute_cap")) return Promise.resolve({ ok: true, stdout: "GPU-a, 9.0\nGPU-b, 9.0\n" });
          return script.smi.run(args, how);
        }) as typeof script.smi.run,
      };
      await using watch = await watchGpus(smi, { onChange: () => undefined, kept: kept(bootId) });
      return { runs, gpus: watch.inventory.gpus };
    };
    using script = scripted([A, B]);
    const first = await asked(script, "boot-1");
    expect(first.runs).toEqual(["-q", "--query-gpu=uuid,compute_cap", "topo"]);
    const again = await asked(script, "boot-1");
    expect(again.runs).toEqual(["-q"]);
    expect(first.gpus).toMatchObject([{ computeCapability: "9.0", links: [{ gpu: "GPU-b" }] }, { uuid: "GPU-b" }]);
    expect(again.gpus).toEqual(first.gpus);
    expect((await asked(script, "boot-2")).runs).toEqual(first.runs);
    using other = scripted([A]);
    expect((await asked(other, "boot-2")).runs).toContain("--query-gpu=uuid,compute_cap");
    text = '{"boot":"boot-2","of":7,"capabilities":null}';
    expect((await asked(script, "boot-2")).runs).toEqual(first.runs);
  });

  it("a read that fails keeps the GPUs, failed and not allocatable; one that succeeds without a GPU drops it", async () => {
    using script = scripted([A, B]);
    let reads = 0;
    {
      await using watch = await watchGpus(script.smi, {
        onChange: () => undefined,
        onRead: () => (reads += 1),
        healthIntervalMs: 100,
      });
      expect(watch.inventory.gpus.every(({ allocatable }) => allocatable)).toBe(true);
      script.breaks(noDriver);
      await until(() => codes(watch).includes("no_driver"));
      const [problem] = watch.inventory.problems;
      expect(uuids(watch)).toEqual(["GPU-a", "GPU-b"]);
      for (const gpu of watch.inventory.gpus)
        expect(gpu).toMatchObject({
          allocatable: false,
          health: { status: "failed", reasons: [{ code: "no_driver", message: problem?.message }] },
        });
      expect(watch.inventory.samples).toEqual([]);
      expect(watch.inventory.failed?.code).toBe("no_driver");
      script.says({ xml: documentOf([B]) });
      script.breaks(undefined);
      await until(() => uuids(watch).length === 1);
      expect(watch.inventory.gpus).toMatchObject([{ uuid: "GPU-b", allocatable: true, health: { status: "healthy" } }]);
      expect(codes(watch)).toEqual([]);
      script.breaks({ text: "No devices were found\n", code: 6 });
      await until(() => codes(watch).includes("no_devices"));
      expect(uuids(watch)).toEqual([]);
    }
    const before = reads;
    await sleep(300);
    expect(reads).toBe(before);
    await script.gone();
  });

  it("a document that breaks off keeps the GPUs it does not reach", async () => {
    using script = scripted([A, B]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined, healthIntervalMs: 100 });
    const whole = documentOf([A, B]);
    script.says({ xml: whole.slice(0, whole.indexOf("GPU-b")) });
    await until(() => codes(watch).includes("unreadable"));
    expect(watch.inventory.gpus).toMatchObject([
      { uuid: "GPU-a", allocatable: true },
      { uuid: "GPU-b", allocatable: false, health: { reasons: [{ code: "unreadable" }] } },
    ]);
    expect(watch.inventory.samples.map(({ uuid }) => uuid)).toEqual(["GPU-a"]);
  });

  it("paused: nothing of ours runs, nothing is started, the GPUs stay and are nobody's; resumed: they are read at once", async () => {
    using script = scripted([A]);
    let changes = 0;
    {
      await using watch = await watchGpus(script.smi, { onChange: () => (changes += 1), healthIntervalMs: 100 });
      await using stream = listen(watch);
      await until(() => stream.sets.length > 2);
      expect(script.running().length).toBeGreaterThan(0);
      const before = changes;
      await watch.pause();
      expect(script.running()).toEqual([]);
      expect(watch.paused).toBe(true);
      expect(changes).toBe(before + 1);
      expect(watch.inventory).toMatchObject({ gpus: [{ uuid: "GPU-a", allocatable: false }], samples: [] });
      expect(watch.inventory.gpus[0]?.health.status).toBe("healthy");
      expect(codes(watch)).toEqual(["sampling_paused"]);
      const calls = script.calls("").length;
      const sets = stream.sets.length;
      watch.refresh();
      await watch.pause();
      await sleep(500);
      expect(script.calls("").length).toBe(calls);
      expect(stream.sets.length).toBe(sets);
      // The driver that is loaded meanwhile is another one, with another GPU.
      script.says({ xml: documentOf([A, B], "595.58.03"), rows: rowsOf([A, B]) });
      watch.resume();
      expect(watch.inventory.gpus[0]?.allocatable).toBe(false);
      await until(() => codes(watch).length === 0);
      expect(watch.inventory.gpus).toMatchObject([{ allocatable: true, driverVersion: "595.58.03" }, B]);
      await until(() => stream.sets.at(-1)?.length === 2);
    }
    await script.gone();
  });

  it("a read that a pause cuts short says nothing, however soon it is resumed", async () => {
    using script = scripted([A]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined, healthIntervalMs: 50 });
    const seen = new Set<string>();
    for (let round = 0; round < 10; round += 1) {
      await sleep(45 + round);
      const done = watch.pause();
      watch.resume();
      await done;
      for (const code of codes(watch)) seen.add(code);
    }
    await until(() => codes(watch).length === 0);
    expect([...seen].filter((code) => code !== "sampling_paused")).toEqual([]);
    expect(watch.inventory.gpus).toMatchObject([{ uuid: "GPU-a", allocatable: true }]);
  });

  it("started paused it does not touch the device", async () => {
    using script = scripted([A]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined, paused: true });
    expect(codes(watch)).toEqual(["sampling_paused"]);
    expect(script.calls("")).toEqual([]);
    watch.resume();
    await until(() => uuids(watch).length === 1);
    expect(codes(watch)).toEqual([]);
  });

  it("refresh reads before the time, and no more than once in 5 s", async () => {
    using script = scripted([A]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined });
    const started = performance.now();
    for (let asked = 0; asked < 20; asked += 1) {
      watch.refresh();
      await sleep(50);
    }
    expect(script.calls("-q -x")).toHaveLength(1);
    await until(() => script.calls("-q -x").length === 2);
    expect(performance.now() - started).toBeGreaterThan(3900);
    await sleep(300);
    expect(script.calls("-q -x")).toHaveLength(2);
  });

  it("memory that changes hands is a reason to read; small change and a lasting difference are none", async () => {
    using script = scripted([A]);
    const reads: (number | undefined)[] = [];
    await using watch = await watchGpus(script.smi, {
      onChange: () => undefined,
      onRead: ({ samples }) => reads.push(samples[0]?.vramUsedMiB),
    });
    await using stream = listen(watch);
    await until(() => stream.sets.length > 0);
    script.says({ rows: rowsOf([{ ...A, usedMiB: 63 }]) });
    await sleep(5500);
    expect(reads).toEqual([0]);
    script.says({ xml: documentOf([{ ...A, usedMiB: 500 }]), rows: rowsOf([{ ...A, usedMiB: 1000 }]) });
    await until(() => reads.length === 2, 1500);
    expect(reads).toEqual([0, 500]);
    await sleep(5500);
    expect(reads).toEqual([0, 500]);
  }, 20_000);

  it("a repaired driver is sampled again with the read that sees it; the broken stream is a problem until then", async () => {
    using script = scripted([A]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined, healthIntervalMs: 1000 });
    await using stream = listen(watch);
    await until(() => stream.sets.length > 0);
    script.breaks(noDriver);
    await until(() => codes(watch).includes("no_driver"));
    // Long enough for the pauses between starts to have grown beyond what is allowed below.
    await sleep(8000);
    const before = stream.sets.length;
    script.breaks(undefined);
    await until(() => codes(watch).length === 0 && stream.sets.length > before, 2500);
  }, 20_000);

  it("a stream that breaks while the reads go well is told", async () => {
    using script = scripted([A]);
    script.says({ rows: "Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error\n" });
    await using watch = await watchGpus(script.smi, { onChange: () => undefined });
    await using stream = listen(watch);
    await until(() => codes(watch).includes("timeout"));
    expect(watch.inventory.gpus).toMatchObject([{ allocatable: true }]);
    script.says({ rows: rowsOf([A]) });
    await until(() => stream.sets.length > 0 && codes(watch).length === 0);
  }, 20_000);

  it("MIG toggled, a GPU more: the stream is another one, and a driver's fields are asked for once", async () => {
    using script = scripted([A]);
    await using watch = await watchGpus(script.smi, { onChange: () => undefined, healthIntervalMs: 200 });
    await using stream = listen(watch);
    await until(() => stream.sets.length > 0);
    const mig = "<mig_mode><current_mig>Enabled</current_mig></mig_mode>";
    script.says({ xml: documentOf([{ ...A, more: mig }]) });
    await until(() => script.calls("-lms").length === 2);
    script.says({ xml: documentOf([A, B]), rows: rowsOf([A, B]) });
    await until(() => stream.sets.at(-1)?.length === 2);
    expect(script.calls("-lms")).toHaveLength(3);
    expect(script.calls("--help-query-gpu")).toHaveLength(1);
    script.says({ xml: documentOf([A, B], "595.58.03") });
    await until(() => script.calls("-lms").length === 4);
    expect(script.calls("--help-query-gpu")).toHaveLength(2);
    await sleep(500);
    expect(script.calls("-lms")).toHaveLength(4);
  });
});
