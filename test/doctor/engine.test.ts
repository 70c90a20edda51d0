import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import type { Report } from "../../src/doctor/report.ts";
import { Rig, Site } from "../agent/rig.ts";
import { outcome, root, start } from "../cli/gpunode.ts";
import { containersLeft, engineIsPrivate, haveEngine, pushImage, smallImage } from "../support/engine.ts";

const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const SLOW = 120_000;

/** The command as its owner calls it, on the machine of a rig, whose coordinator may run in this very process. */
async function doctor(rig: Rig, ...args: string[]): Promise<{ report: Report; status: number | null }> {
  const scenario = readFileSync(rig.scenario, "utf8") === "" ? "rtx4090x2" : rig.scenario;
  // As the rig's daemon has it.
  const env = { GPUNODE_SIM_SCENARIO: scenario, GPUNODE_SIM_SEED: rig.dir };
  const program = join(root, "bin/gpunode.js");
  const { code, out, err } = await outcome(
    start(process.execPath, [program, "doctor", "--json", ...args, "--config", rig.config], env),
  );
  expect(err).toBe("");
  return { report: JSON.parse(out) as Report, status: code };
}

const verdictOf = ({ report }: { report: Report }, id: string) => {
  const check = report.checks.find((one) => one.id === id);
  return `${check?.verdict}: ${check?.found}`;
};

describe.runIf(haveEngine)("gpunode doctor on a node at work", { timeout: SLOW }, () => {
  it("asks the daemon, the engine and the coordinator, and leaves nothing behind", async () => {
    await using site = await Site.open();
    const examined = await doctor(site.rig);
    expect(examined.report).toMatchObject({ doctorVersion: 1, gpunodeVersion: expect.any(String) as string });
    expect(verdictOf(examined, "nvidia-smi")).toMatch(/^ok: 2 × NVIDIA GeForce RTX 4090, driver [\d.]+, simulated by /);
    expect(verdictOf(examined, "gpu-health")).toMatch(/^ok/);
    expect(verdictOf(examined, "daemon")).toMatch(/^ok: gpunode [\d.]+ is available, 0 workloads run$/);
    expect(verdictOf(examined, "engine")).toMatch(/^ok: \S.* at \//);
    expect(verdictOf(examined, "engine-access")).toMatch(/^ok: /);
    expect(verdictOf(examined, "engine-version")).toMatch(/^ok: API 1\.\d+$/);
    expect(verdictOf(examined, "coordinator-session")).toMatch(/^ok: connected since/);
    expect(verdictOf(examined, "coordinator-protocol")).toBe("ok: it does");
    expect(verdictOf(examined, "isolation")).toMatch(/^note: network\.isolate_lan is false/);
    expect(verdictOf(examined, "disk-speed")).toMatch(/MiB\/s at \//);
    // No simulated GPU comes into a container: the engine takes the request, and nothing is inside.
    expect(verdictOf(examined, "gpu-in-container")).toMatch(
      engineIsPrivate
        ? /^failure: it was given GPU-.* and sees no GPU: there is no \/dev\/nvidia/
        : /^skipped: the GPUs are simulated/,
    );
    expect(examined.status).toBe(examined.report.counts.failure > 0 ? 1 : 0);
    expect(await containersLeft("org.gpunode.node=doctor")).toEqual([]);
    // Nobody of the node's own noticed.
    expect(site.rig.status().problems).toEqual([]);
    expect((await site.client.nodes()).filter(({ connected }) => connected)).toHaveLength(1);
  });

  it("looks at the one GPU that a workload has, and takes nothing from it", async () => {
    const image = await pushImage("doctor/job:1", await smallImage());
    await using site = await Site.open({ scenario: JSON.stringify({ gpus: [{ model: "t4" }] }) });
    await site.client.submit({ id: "busy", image, command: ["sleep", "600"], gpus: { count: 1 } });
    const before = await site.reaches("busy", "running");
    const examined = await doctor(site.rig);
    expect(verdictOf(examined, "daemon")).toMatch(/1 workload runs$/);
    if (engineIsPrivate)
      expect(verdictOf(examined, "gpu-in-container")).toContain(site.rig.status().gpus[0]?.uuid ?? "?");
    expect(verdictOf(examined, "foreign-processes")).toBe("ok: nobody does");
    const after = await site.client.workload("busy");
    expect({ state: after.state, events: after.events.length }).toEqual({
      state: "running",
      events: before.events.length,
    });
    expect(site.rig.status().holds).toEqual([]);
    await site.client.release("busy");
    await site.reaches("busy", "stopped");
  });

  it("starts no container where none is wanted, and looks at nothing but what is named", async () => {
    await using rig = new Rig({});
    const examined = await doctor(rig, "gpu-in-container", "engine", "--no-containers");
    expect(examined.report.checks.map(({ id }) => id)).toEqual(["engine", "gpu-in-container"]);
    expect(verdictOf(examined, "gpu-in-container")).toMatch(/^skipped: --no-containers was given/);
    expect(examined.status).toBe(0);
  });

  it.each([
    ["a lost GPU", { kind: "lostGpu", gpu: 1 }, "gpu-health", /^failure: GPU 1 .* has fallen off the bus/],
    ["a driver and a library of two versions", { kind: "mismatch" }, "driver-match", /^failure: .*different versions/],
    ["a driver that is not loaded", { kind: "driverMissing" }, "nvidia-smi", /^failure: .*kernel module is not loaded/],
    ["a library that is gone", { kind: "libraryMissing" }, "nvidia-smi", /^failure: .*libnvidia-ml\.so\.1 is missing/],
    ["GPUs this user may not use", { kind: "permission" }, "nvidia-smi", /^failure: .*may not use the GPU devices/],
    [
      "memory errors",
      { kind: "override", gpu: 0, values: { "ecc.errors.uncorrected.volatile.dram": "3" } },
      "gpu-health",
      /^warning: GPU 0 .* is degraded: 3 uncorrectable memory errors/,
    ],
    [
      "persistence mode off",
      { kind: "override", gpu: 0, values: { persistence_mode: "Disabled" } },
      "persistence-mode",
      /^warning: persistence mode is off on GPU 0$/,
    ],
  ])("sees %s", async (_, fault, id, found) => {
    const scenario = JSON.stringify({ driver: "550", gpus: [{ model: "h100-sxm-80gb", count: 2 }], faults: [fault] });
    await using rig = new Rig({ scenario });
    expect(verdictOf(await doctor(rig, id, "--no-containers"), id)).toMatch(found);
  });
});

describe.runIf(engineIsPrivate)("a container with a GPU", { timeout: SLOW }, () => {
  const things = new AsyncDisposableStack();
  let engine: PrivateEngine;
  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-doctor-"));
    things.defer(() => rmSync(dir, { recursive: true, force: true }));
    // Stands for NVIDIA's hook: puts an nvidia-smi into the container that knows the GPU it was started with.
    const hooks = join(dir, "hooks");
    mkdirSync(hooks);
    const hook = join(hooks, "nvidia-container-runtime-hook");
    writeFileSync(hook, `#!${process.execPath}\n${HOOK}`);
    chmodSync(hook, 0o755);
    engine = things.use(
      await startPrivateEngine({
        dir: join(dir, "e"),
        packagesDir: PACKAGES_DIR,
        log: () => undefined,
        through: ["sh", "-c", 'PATH="$0:$PATH" exec "$@"', hooks],
      }),
    );
  }, SLOW);
  afterAll(async () => await things.disposeAsync(), SLOW);

  it("sees it, and no other, and is gone afterwards", async () => {
    await using rig = new Rig({ socket: engine.socket });
    const examined = await doctor(rig, "gpu-in-container");
    expect(verdictOf(examined, "gpu-in-container")).toMatch(/^ok: it sees GPU-[0-9a-f-]+, and no other$/);
    expect(examined.status).toBe(0);
    const docker = new Docker({ socketPath: engine.socket });
    expect(await docker.listContainers({ all: true })).toEqual([]);
    // A doctor that was killed left one that has ended, and one that is at work: the next removes the first alone.
    const [image] = await docker.listImages();
    const left = async (name: string, Cmd: string[]) => {
      const Labels = { "org.gpunode.node": "doctor" };
      const container = await docker.createContainer({ name, Image: image?.Id ?? "", Cmd, Labels });
      await container.start();
      return container;
    };
    await (await left("ended", [process.execPath, "-e", "0"])).wait();
    const busy = await left("busy", [process.execPath, "-e", "setInterval(() => {}, 1000)"]);
    expect((await doctor(rig, "gpu-in-container")).status).toBe(0);
    const names = (await docker.listContainers({ all: true })).flatMap(({ Names }) => Names);
    await busy.remove({ force: true });
    expect(names).toEqual(["/busy"]);
    expect(readdirSync(rig.dir)).not.toContain("state");
  });
});

const HOOK = `
const { chmodSync, mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { join, resolve } = require("node:path");
const { bundle } = JSON.parse(readFileSync(0, "utf8"));
const { root, process: inside } = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"));
const gpu = inside.env.find((entry) => entry.startsWith("NVIDIA_VISIBLE_DEVICES=")).split("=")[1];
const folder = join(resolve(bundle, root.path), "usr/bin");
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, "nvidia-smi"), "#!" + inside.args.find((word) => word.endsWith("/node")) + "\\nconsole.log('GPU 0: NVIDIA Test (UUID: " + gpu + ")')\\n");
chmodSync(join(folder, "nvidia-smi"), 0o755);
`;
