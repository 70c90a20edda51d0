import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { askGpus } from "../../../src/agent/asked-gpus.ts";
import { askAhead } from "../../../src/gpu/nvidia/ahead.ts";
import { createSmi } from "../../../src/gpu/nvidia/runner.ts";
import { bootId } from "../../../src/host/sampler.ts";

/** An nvidia-smi that tells how often it was called; `-L` hangs. */
function counting() {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-ahead-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "nvidia-smi");
  const pid = join(dir, "pid");
  writeFileSync(
    path,
    `#!/bin/sh\necho "$*" >> ${dir}/calls\nif [ "$*" = -L ]; then echo $$ > ${pid}; exec sleep 1000; fi\nwc -l < ${dir}/calls\n`,
    { mode: 0o755 },
  );
  const calls = () => {
    try {
      return readFileSync(join(dir, "calls"), "utf8").trim().split("\n");
    } catch {
      return [];
    }
  };
  const isHanging = () => {
    try {
      process.kill(Number(readFileSync(pid, "utf8")), 0);
      return true;
    } catch {
      return false;
    }
  };
  return { dir, path, calls, isHanging };
}

it("gives the first who asks what was asked ahead, and everybody else an answer of their own", async () => {
  const { path, calls } = counting();
  using smi = askAhead(createSmi({ path }), ["-q", "-x"]);
  await expect.poll(calls).toEqual(["-q -x"]);
  expect(await smi.run(["topo", "-m"])).toEqual({ ok: true, stdout: "2\n" });
  expect(await smi.run(["-q", "-x"])).toEqual({ ok: true, stdout: "1\n" });
  expect(await smi.run(["-q", "-x"])).toEqual({ ok: true, stdout: "3\n" });
});

it("is cut by the signal of who took it, and by being disposed of", async () => {
  for (const cut of ["signal", "disposal"]) {
    const { path, isHanging } = counting();
    const smi = askAhead(createSmi({ path }), ["-L"]);
    await expect.poll(isHanging).toBe(true);
    const stop = new AbortController();
    const answer = cut === "signal" ? smi.run(["-L"], { signal: stop.signal }) : undefined;
    if (cut === "signal") stop.abort();
    else smi[Symbol.dispose]();
    expect((await answer)?.ok).not.toBe(true);
    await expect.poll(isHanging).toBe(false);
  }
});

it("asks nothing while the owner's pause of this boot stands", async () => {
  const { dir, path, calls } = counting();
  const config = { stateDir: dir, nvidia: { smi: path, simulated: false, kernelLog: "/dev/null" } };
  {
    using asked = askGpus(config);
    await expect.poll(calls).toEqual(["-q -x"]);
    asked.pause.set("another boot");
  }
  {
    using asked = askGpus(config);
    await expect.poll(calls).toHaveLength(2);
    asked.pause.set(bootId());
  }
  {
    using asked = askGpus(config);
    expect(asked.pause.get()).toBe(bootId());
    // The next question is the first one.
    await asked.smi.run(["topo", "-m"]);
    expect(calls()).toEqual(["-q -x", "-q -x", "topo -m"]);
    asked.pause.set(undefined);
    expect(asked.pause.get()).toBeUndefined();
  }
});
