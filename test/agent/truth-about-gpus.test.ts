import { execFile } from "node:child_process";
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { contradictions, type HeldEvent, heldEvents } from "../faults/truth.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { patiently, Rig, Site } from "./rig.ts";

const sh = (script: string) => ["sh", "-c", script];
const healthEverySecond = { GPUNODE_TELEMETRY_HEALTH_INTERVAL_SECONDS: "1" };

/** A folder with a load file for the simulator and a kernel log. */
function stage() {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-truth-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const [loadFile, kernelLog] = [join(dir, "load.json"), join(dir, "kern.log")];
  writeFileSync(loadFile, "{}");
  writeFileSync(kernelLog, "");
  const scenario = (gpus: object[], more: object = {}) => JSON.stringify({ gpus, loadFile, ...more });
  const env = { ...healthEverySecond, GPUNODE_NVIDIA_KERNEL_LOG: kernelLog };
  return { env, kernelLog, scenario, load: (load: object) => writeFileSync(loadFile, JSON.stringify(load)) };
}

async function events(site: Site, kind: string): Promise<HeldEvent[]> {
  return (await heldEvents(site.apiUrl)).filter((event) => event.kind === kind);
}

/** The first event of that kind with these fields. */
async function told(site: Site, kind: string, fields: object): Promise<HeldEvent> {
  return await patiently(async () =>
    (await events(site, kind)).find((event) =>
      Object.entries(fields).every(([key, value]) => (event as Record<string, unknown>)[key] === value),
    ),
  );
}

describe.runIf(haveEngine)("the truth about the GPUs", () => {
  test("a GPU that falls off the bus takes its work with it, with notice, and hides no other", async () => {
    const { env, kernelLog, scenario } = stage();
    const image = await pushImage("agent/truth:1", await smallImage());
    await using site = await Site.open({ env, scenario: scenario([{ model: "rtx-4090", count: 2 }]) });
    const command = sh("trap 'exit 0' TERM; while :; do sleep 0.1; done");
    await site.client.submit({ id: "hit", image, command, gpus: { count: 1 } });
    const running = await site.reaches("hit", "running");
    const [broken] = running.gpus;
    const gpus = site.rig.status().gpus;
    const bus = gpus
      .find(({ uuid }) => uuid === broken)
      ?.pci?.busId.slice(4, -2)
      .toLowerCase();
    appendFileSync(kernelLog, `[1.0] NVRM: Xid (PCI:${bus}): 79, pid=1, name=python, GPU has fallen off the bus.\n`);
    expect(await told(site, "gpuHealth", { gpu: broken, status: "failed" })).toMatchObject({
      reasons: [{ code: "xid_79", message: expect.stringContaining("fallen off the bus") }],
    });
    const view = await site.ends("hit");
    expect(view.state).toBe("preempted");
    expect(
      (await events(site, "preemption")).map((event) => ("phase" in event ? [event.phase, event.cause] : [])),
    ).toEqual([
      ["notice", "gpu_fault"],
      ["finished", "gpu_fault"],
    ]);
    const after = await patiently(async () => {
      const node = (await site.client.nodes())[0];
      return node?.gpus?.some(({ allocatable }) => !allocatable) ? node : undefined;
    });
    expect(after.gpus?.map(({ uuid, allocatable, health }) => [uuid === broken, allocatable, health.status])).toEqual(
      expect.arrayContaining([
        [true, false, "failed"],
        [false, true, "healthy"],
      ]),
    );
    await site.client.submit({ id: "next", image, command: sh("true"), gpus: { count: 1 } });
    const next = await site.ends("next");
    expect(next.state).toBe("succeeded");
    expect(next.gpus).not.toContain(broken);
  });

  test("VRAM: its pressure is told, and whose it is", async () => {
    const { env, load, scenario } = stage();
    const image = await pushImage("agent/truth:1", await smallImage());
    await using site = await Site.open({ env, scenario: scenario([{ model: "rtx-4090" }]) });
    await site.client.submit({
      id: "full",
      image,
      command: sh("sleep 60"),
      gpus: { count: 1 },
      stop: { graceSeconds: 0 },
    });
    const running = await site.reaches("full", "running");
    const containerId = running.events.flatMap((event) => (event.containerId as string | undefined) ?? [])[0] ?? "";
    const { State } = await docker().getContainer(containerId).inspect();
    load({
      "*": {
        utilizationPercent: 70,
        vramUsedMiB: 24_300,
        processes: [
          { pid: State.Pid, name: "python", usedMiB: 20_000 },
          { pid: process.pid, name: "game", usedMiB: 4000 },
        ],
      },
    });
    const event = await told(site, "pressure", { resource: "vram", level: "critical" });
    expect(event).toMatchObject({ gpu: running.gpus[0], thresholdPercent: 99 });
    const node = (await site.client.nodes())[0]?.id ?? "";
    const frame = await patiently(async () => {
      const telemetry = await site.client.telemetry(node);
      return telemetry.gpus[0]?.pressure === "critical" && telemetry.workloads[0]?.vramUsedMiB === 20_000
        ? telemetry
        : undefined;
    });
    expect(frame.gpus[0]?.processes).toEqual([
      { pid: State.Pid, workload: "full", vramUsedMiB: 20_000 },
      { pid: process.pid, vramUsedMiB: 4000 },
    ]);
    expect(frame.gpus[0]?.vramUnattributedMiB).toBeLessThan(400);
    expect(frame.workloads[0]).toMatchObject({ id: "full", vramUsedMiB: 20_000, gpuUtilizationPercent: 70 });
    await site.client.release("full");
    await site.ends("full");
  });

  test("usage: signed records whose sum is the time on the wall clock, over a kill of the agent", async () => {
    const { env, load, scenario } = stage();
    const image = await pushImage("agent/truth:1", await smallImage());
    await using site = await Site.open({ env, scenario: scenario([{ model: "rtx-4090", count: 2 }]) });
    load({ "*": { utilizationPercent: 80 } });
    await site.client.submit({ id: "paid", image, command: sh("sleep 6"), gpus: { count: 2 } });
    const running = await site.reaches("paid", "running");
    await sleep(1500);
    await site.rig.end("SIGTERM");
    site.rig.start();
    await site.rig.until(({ workloads }) => workloads[0]?.state === "running");
    await sleep(500);
    await site.rig.end("SIGKILL");
    await sleep(1000);
    site.rig.start();
    await site.ends("paid");
    await told(site, "usage", { workload: "paid", final: true });
    const held = await heldEvents(site.apiUrl);
    expect(contradictions(held, { allEnded: true })).toEqual([]);
    const records = held.flatMap((event) => (event.kind === "usage" ? [event] : []));
    expect(records.length).toBeGreaterThan(1);
    const containerId = running.events.flatMap((event) => (event.containerId as string | undefined) ?? [])[0] ?? "";
    expect(containerId).not.toBe("");
    // The container slept for six seconds; it is held a little longer than that.
    const seconds = records.reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0) / 2;
    expect(seconds).toBeGreaterThan(5.9);
    expect(seconds).toBeLessThan(8);
    expect(records.reduce((sum, { energyJoules = 0 }) => sum + energyJoules, 0)).toBeGreaterThan(100);
    const { status, stdout } = site.rig.gpunode("usage", "--json", "--since", "1h");
    expect(status).toBe(0);
    const summary = JSON.parse(stdout) as {
      days: { workload: string; verified: boolean }[];
      total: { gpuSeconds: number };
    };
    expect(summary.days).toEqual([expect.objectContaining({ workload: "paid", verified: true })]);
    expect(summary.total.gpuSeconds).toBeCloseTo(seconds * 2, 3);
    // The other side has the same bill, and the same proof of it.
    const program = resolve(import.meta.dirname, "../../bin/gpunode.js");
    // The coordinator lives in this process: it must not stand still meanwhile.
    const { stdout: bill } = await promisify(execFile)(process.execPath, [
      program,
      "coordinator",
      "usage",
      "--json",
      "--coordinator",
      site.apiUrl,
    ]);
    expect(JSON.parse(bill)).toEqual([
      expect.objectContaining({
        node: expect.objectContaining({ id: site.rig.nodeId }),
        days: summary.days,
        total: summary.total,
        problems: [],
      }),
    ]);
  });

  test("what changes on the machine is advertised within a health interval, without a restart", async () => {
    const { env, scenario } = stage();
    await using site = await Site.open({
      env,
      scenario: scenario([{ model: "a100-sxm4-40gb" }], { driver: "550.54.15" }),
    });
    const told = async (
      wanted: (gpus: { driverVersion?: string; mig?: { enabled: boolean; instances: unknown[] } }[]) => boolean,
    ) =>
      await patiently(
        async () =>
          ((await site.client.nodes())[0]?.gpus ?? []).length > 0 && wanted((await site.client.nodes())[0]?.gpus ?? [])
            ? true
            : undefined,
        10_000,
      );
    await told(([gpu]) => gpu?.driverVersion === "550.54.15");
    const change = (gpus: object[], driver: string) => writeFileSync(site.rig.scenario, scenario(gpus, { driver }));
    change([{ model: "a100-sxm4-40gb" }], "580.105.08");
    await told(([gpu]) => gpu?.driverVersion === "580.105.08");
    change([{ model: "a100-sxm4-40gb", mig: ["3g.20gb", "3g.20gb"] }], "580.105.08");
    await told(([gpu]) => gpu?.mig?.enabled === true && gpu.mig.instances.length === 2);
    change([{ model: "a100-sxm4-40gb" }, { model: "l40s" }], "580.105.08");
    await told((gpus) => gpus.length === 2);
    change([{ model: "a100-sxm4-40gb" }], "580.105.08");
    await told((gpus) => gpus.length === 1);
    expect((await events(site, "gpuHealth")).at(-1)).toMatchObject({
      status: "failed",
      reasons: [{ code: "gpu_missing" }],
    });
  });

  test("a power limit the owner set is a capability, not a fault", async () => {
    const { env, scenario } = stage();
    await using site = await Site.open({ env, scenario: scenario([{ model: "rtx-4090", powerLimitWatts: 250 }]) });
    const gpu = (await site.client.nodes())[0]?.gpus?.[0];
    expect(gpu).toMatchObject({ powerLimitWatts: 250, powerLimitDefaultWatts: 450, allocatable: true });
    expect(gpu?.health).toEqual({ status: "healthy", reasons: [] });
  });

  test("MIG instances are given like GPUs, beside a whole one", async () => {
    const { env, scenario } = stage();
    const image = await pushImage("agent/truth:1", await smallImage());
    const gpus = [{ model: "a100-sxm4-40gb", mig: ["3g.20gb", "1g.5gb"] }, { model: "a100-sxm4-40gb" }];
    await using site = await Site.open({ env, scenario: scenario(gpus) });
    const command = sh('echo "$NVIDIA_VISIBLE_DEVICES"');
    await site.client.submit({ id: "part", image, command, gpus: { count: 1, migProfile: "3g.20gb" } });
    await site.client.submit({ id: "whole", image, command, gpus: { count: 1 } });
    const [part, whole] = [await site.ends("part"), await site.ends("whole")];
    expect(part.gpus[0]).toMatch(/^MIG-/);
    expect(site.rig.gpunode("logs", "part").stdout).toBe(`${part.gpus[0]}\n`);
    expect(whole.gpus[0]).toMatch(/^GPU-/);
  });
});

describe("a node nobody listens to", () => {
  const samplers = (rig: Rig) =>
    readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid)) return false;
      try {
        return (
          readFileSync(`/proc/${pid}/environ`, "utf8").includes(`GPUNODE_SIM_SEED=${rig.dir}\0`) &&
          readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("nvidia-smi-sim")
        );
      } catch {
        return false;
      }
    });

  test("samples while its owner looks, and lets go of the GPUs when it is told to", async () => {
    await using rig = new Rig({ env: { GPUNODE_DOCKER_SOCKET: "/nowhere/docker.sock" } });
    rig.start();
    await rig.until(({ gpus }) => gpus.length === 2);
    await patiently(() => (samplers(rig).length > 0 ? true : undefined));
    // The look is over after five seconds; then there is one read every thirty.
    await patiently(() => (samplers(rig).length === 0 ? true : undefined));
    await sleep(500);
    expect(samplers(rig)).toEqual([]);
    // A look waits a second for its first sample; a busy machine takes longer.
    await rig.until(({ gpus }) => (gpus[0]?.telemetry?.powerWatts ?? 0) > 0);
    expect(rig.gpunode("pause-sampling").stdout).toContain("has let go of the GPUs");
    expect(samplers(rig)).toEqual([]);
    const paused = rig.status();
    expect(samplers(rig)).toEqual([]);
    expect(paused.gpus.map(({ allocatable }) => allocatable)).toEqual([false, false]);
    expect(paused.problems.map(({ code }) => code)).toContain("sampling_paused");
    // A restart of the agent does not take the device again.
    await rig.end("SIGTERM");
    rig.start();
    await rig.until(({ problems }) => problems.some(({ code }) => code === "sampling_paused"));
    expect(samplers(rig)).toEqual([]);
    expect(rig.gpunode("resume-sampling").stdout).toContain("read again");
    await rig.until(({ gpus }) => gpus.length === 2 && gpus.every(({ allocatable }) => allocatable));
  });

  test("drained for maintenance it lets go of the GPUs, until it is resumed", async () => {
    await using rig = new Rig({ env: { GPUNODE_DOCKER_SOCKET: "/nowhere/docker.sock" } });
    rig.start();
    await rig.until(({ gpus }) => gpus.length === 2);
    expect(rig.gpunode("drain", "--maintenance").status).toBe(0);
    await rig.until(({ problems }) => problems.some(({ code }) => code === "sampling_paused"));
    expect(samplers(rig)).toEqual([]);
    expect(rig.gpunode("resume").status).toBe(0);
    await rig.until(({ gpus, node }) => node.state === "available" && gpus.every(({ allocatable }) => allocatable));
  });

  test("says why it has no GPU", async () => {
    await using rig = new Rig({ smi: "/nowhere/nvidia-smi" });
    rig.start();
    const { problems, gpus } = await rig.until(({ problems: known }) => known.length > 0);
    expect(gpus).toEqual([]);
    expect(problems.find(({ code }) => code === "not_found")?.message).toMatch(
      /was not found.*The (PCI bus|NVIDIA board)/,
    );
  });
});
