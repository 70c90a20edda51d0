import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { presets } from "../../../src/gpu/simulator/presets.ts";
import { profiles } from "../../../src/gpu/simulator/profiles.ts";
import { elementTexts, simulate } from "./run.ts";

const cli = resolve(import.meta.dirname, "../../../src/gpu/simulator/cli.ts");

let folder: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gpunode-sim-"));
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    }
    expect(() => process.kill(child.pid ?? 0, 0)).toThrow("ESRCH");
  }
  rmSync(folder, { recursive: true });
});

function start(scenario: string, argv: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const child = spawn(process.execPath, [cli, ...argv], {
    env: { PATH: process.env.PATH, GPUNODE_SIM_SCENARIO: scenario, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  return child;
}

/** Lines of a stream as they come, with when they came. */
async function* linesOf(child: ChildProcess): AsyncGenerator<string> {
  if (child.stdout === null) throw new Error("no stdout");
  yield* createInterface({ input: child.stdout });
}

async function take(child: ChildProcess, count: number): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of linesOf(child)) {
    lines.push(line);
    if (lines.length === count) break;
  }
  return lines;
}

function scenarioFile(scenario: object): string {
  const path = join(folder, "scenario.json");
  writeFileSync(path, JSON.stringify(scenario));
  return path;
}

const used = ["--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"];

describe("presets", () => {
  it.each([
    ["h100x8", 8, 0],
    ["a100x4-mig", 4, 6],
    ["rtx4090x2", 2, 0],
    ["t4", 1, 0],
  ])("%s has %i GPUs and %i MIG devices, all with their own UUID", async (preset, gpus, devices) => {
    const { stdout, exitCode } = await simulate(preset, ["-L"]);
    expect(exitCode).toBe(0);
    expect(stdout.match(/^GPU /gm)).toHaveLength(gpus);
    expect(stdout.match(/^ {2}MIG /gm) ?? []).toHaveLength(devices);
    const uuids = [...stdout.matchAll(/UUID: ([GM][PI][UG]-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)/g)].map(
      ([, id]) => id,
    );
    expect(new Set(uuids).size).toBe(gpus + devices);
  });

  it("are the six of the table, and h100x8 is what plays where none is named", async () => {
    expect(Object.keys(presets)).toEqual(["h100x8", "a100x4-mig", "rtx4090x2", "t4", "none", "broken-driver"]);
    expect((await simulate("", ["-L"])).stdout).toBe((await simulate("h100x8", ["-L"])).stdout);
  });

  it("answer every command line, each with its exit code", async () => {
    const commands = [[], ["-L"], ["-q", "-x"], used, ["topo", "-m"], ["nvlink", "-s"], ["mig", "-lgi"]];
    for (const [preset, exitCode] of [
      ["h100x8", 0],
      ["a100x4-mig", 0],
      ["none", 6],
      ["broken-driver", 9],
    ] as const) {
      for (const argv of commands) expect(await simulate(preset, argv)).toMatchObject({ exitCode, stderr: "" });
    }
  });

  it("have other UUIDs with another seed, and the same with the same", async () => {
    const list = (seed: string) => simulate("t4", ["-L"], { env: { GPUNODE_SIM_SEED: seed } });
    expect((await list("a")).stdout).toBe((await list("a")).stdout);
    expect((await list("a")).stdout).not.toBe((await list("b")).stdout);
  });
});

describe("every model on every driver", () => {
  const drivers = ["470", "515", "525", "535", "550", "570", "580", "580.178.04", "590", "595"];
  const cases = Object.keys(profiles).flatMap((model) => drivers.map((driver) => ({ model, driver })));

  it.each(cases)(
    "$model on $driver: whole XML, and the same numbers in XML, CSV and table",
    async ({ model, driver }) => {
      const scenario = { driver, load: 40, gpus: [{ model }] };
      const env = { GPUNODE_SIM_NOW: "2026-01-02T03:04:05Z" };
      const { stdout: xml, exitCode } = await simulate(scenario, ["-q", "-x"], { env });
      expect(exitCode).toBe(0);
      const open: string[] = [];
      for (const [, close, tag = ""] of xml.matchAll(/<(\/?)(\w+)[^>?]*>/g)) {
        if (close === "/") expect(open.pop()).toBe(tag);
        else open.push(tag);
      }
      expect(open).toEqual([]);
      expect(xml).not.toMatch(/undefined|NaN|\$/);
      const texts = elementTexts(xml);
      const argv = ["--query-gpu=uuid,memory.used,temperature.gpu,clocks.sm,pstate", "--format=csv,noheader"];
      const { stdout: row } = await simulate(scenario, argv, { env });
      const bracket = (text = "") => (text === "N/A" ? "[N/A]" : text);
      const expected = [
        texts.get("uuid"),
        bracket(texts.get("fb_memory_usage/used")),
        texts.get("temperature/gpu_temp")?.replace(" C", ""),
        texts.get("clocks/sm_clock"),
        texts.get("performance_state"),
      ];
      expect(row.trim()).toBe(expected.join(", "));
      const { stdout: table } = await simulate(scenario, [], { env });
      const lines = table.trimEnd().split("\n").slice(1);
      const width = lines[0]?.length;
      expect(lines.filter((line) => line.trim() !== "" && line.length !== width)).toEqual([]);
      expect(table).toContain(`${texts.get("temperature/gpu_temp")?.replace(" ", "")}`);
    },
  );
});

describe("load", () => {
  it("follows the load file, of a running stream too", async () => {
    const loadFile = join(folder, "load.json");
    const path = scenarioFile({ gpus: [{ model: "t4" }], loadFile: "load.json" });
    const child = start(path, [...used, "-lms", "40"]);
    const lines = linesOf(child)[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("0, 0, 0");
    writeFileSync(loadFile, JSON.stringify({ "0": { utilizationPercent: 73, vramUsedMiB: 9000 } }));
    const deadline = Date.now() + 5_000;
    let line = "";
    while (line !== "0, 73, 9000" && Date.now() < deadline) line = (await lines.next()).value ?? "";
    expect(line).toBe("0, 73, 9000");
    writeFileSync(loadFile, '{"0": {"utiliza');
    while (line !== "0, 0, 0" && Date.now() < deadline) line = (await lines.next()).value ?? "";
    expect(line).toBe("0, 0, 0");
  });

  it("adds up a folder, one file for each container, by UUID", async () => {
    const uuid = /GPU-[0-9a-f-]+/.exec((await simulate("t4", ["-L"])).stdout)?.[0] ?? "";
    const loads = join(folder, "loads");
    mkdirSync(loads);
    const process = { pid: 7, name: "serve", usedMiB: 2000 };
    writeFileSync(join(loads, "a.json"), JSON.stringify({ [uuid]: { utilizationPercent: 30, processes: [process] } }));
    writeFileSync(join(loads, "b.json"), JSON.stringify({ [uuid]: { utilizationPercent: 20, vramUsedMiB: 500 } }));
    const env = { GPUNODE_SIM_LOAD_FILE: loads };
    expect((await simulate("t4", used, { env })).stdout).toBe("0, 50, 2500\n");
    const apps = await simulate("t4", ["--query-compute-apps=gpu_uuid,pid,name,used_memory", "--format=csv,noheader"], {
      env,
    });
    expect(apps.stdout).toBe(`${uuid}, 7, serve, 2000 MiB\n`);
  });

  it("moves power, temperature and clocks with utilization", async () => {
    const at = async (load: number) => {
      const fields = "power.draw,temperature.gpu,clocks.sm,pstate,clocks_event_reasons.gpu_idle";
      const argv = [`--query-gpu=${fields}`, "--format=csv,noheader,nounits"];
      const { stdout } = await simulate({ driver: "550", gpus: [{ model: "rtx-4090", load }] }, argv);
      const [watts = "", celsius = "", clock = "", state, idle] = stdout.trim().split(", ");
      return { watts: Number(watts), celsius: Number(celsius), clock: Number(clock), state, idle };
    };
    const [idle, half, full] = [await at(0), await at(50), await at(100)];
    expect([idle.state, idle.idle, full.state, full.idle]).toEqual(["P8", "Active", "P2", "Not Active"]);
    expect(idle.watts).toBeLessThan(half.watts);
    expect(half.watts).toBeLessThan(full.watts);
    expect(full.watts).toBeLessThanOrEqual(450);
    expect(idle.celsius).toBeLessThan(half.celsius);
    expect(half.celsius).toBeLessThan(full.celsius);
    expect(idle.clock).toBeLessThan(half.clock);
  });

  it("follows points over time", async () => {
    const load = {
      points: [
        { atMs: 0, utilizationPercent: 0 },
        { atMs: 10_000, utilizationPercent: 100 },
      ],
    };
    const scenario = { startedAt: 1_000_000, gpus: [{ model: "t4", load }] };
    for (const [ms, percent] of [
      [0, 0],
      [2_500, 25],
      [10_000, 100],
      [60_000, 100],
    ] as const) {
      const { stdout } = await simulate(scenario, used, { env: { GPUNODE_SIM_NOW: String(1_000_000 + ms) } });
      expect(Number(stdout.split(", ")[1])).toBeCloseTo(percent, -0.5);
    }
  });

  it("of a MIG device shows on the device and in the GPU's memory, never as utilization of the GPU", async () => {
    const scenario = { driver: "550", gpus: [{ model: "a100-sxm4-40gb", mig: ["3g.20gb", "2g.10gb"] }] };
    const mig = /MIG-[0-9a-f-]+/.exec((await simulate(scenario, ["-L"])).stdout)?.[0] ?? "";
    const process = { pid: 9, name: "train", usedMiB: 4000 };
    const loadFile = join(folder, "load.json");
    writeFileSync(loadFile, JSON.stringify({ [mig]: { utilizationPercent: 100, processes: [process] } }));
    const env = { GPUNODE_SIM_LOAD_FILE: loadFile };
    const { stdout: xml } = await simulate(scenario, ["-q", "-x"], { env });
    expect(xml).toMatch(
      /<gpu_instance_id>2<\/gpu_instance_id>\s*<compute_instance_id>0<\/compute_instance_id>\s*<pid>9</,
    );
    expect(elementTexts(xml).get("utilization/gpu_util")).toBe("N/A");
    expect((await simulate(scenario, used, { env })).stdout).toBe("0, [N/A], 4039\n");
  });
});

describe("streams", () => {
  it("print row by row at their pace and die of SIGTERM", async () => {
    const child = start("rtx4090x2", ["--query-gpu=timestamp,index", "--format=csv,noheader", "-lms", "100"]);
    const lines = await take(child, 8);
    expect(lines.map((line) => line.split(", ")[1])).toEqual(["0", "1", "0", "1", "0", "1", "0", "1"]);
    const times = lines.map((line) => Date.parse(line.split(", ")[0]?.replaceAll("/", "-").replace(" ", "T") ?? ""));
    const span = (times[6] ?? 0) - (times[0] ?? 0);
    expect(span).toBeGreaterThanOrEqual(280);
    expect(span).toBeLessThan(1_000);
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    expect(await gone).toEqual([null, "SIGTERM"]);
  });

  it("end when the reader goes away", async () => {
    const child = start("t4", ["--query-gpu=index", "--format=csv,noheader", "--loop-ms=20"]);
    const gone = once(child, "exit");
    await take(child, 2);
    child.stdout?.destroy();
    expect(await gone).toEqual([141, null]);
  });

  it("print the header once", async () => {
    const child = start("t4", ["--query-gpu=index,memory.total", "--format=csv,nounits", "-lms", "20"]);
    expect(await take(child, 3)).toEqual(["index, memory.total [MiB]", "0, 15360", "0, 15360"]);
  });

  it("lose a GPU mid-way: its whole row, the others stay; and get it back", async () => {
    const faults = [{ kind: "lostGpu", gpu: 1, afterMs: 300, forMs: 400 }];
    const path = scenarioFile({ startedAt: Date.now() + 400, gpus: [{ model: "t4", count: 2 }], faults });
    const child = start(path, ["--query-gpu=index,temperature.gpu", "--format=csv,noheader", "-lms", "50"]);
    const second: string[] = [];
    for await (const line of linesOf(child)) {
      if (line.startsWith("0, ")) continue;
      if (second.at(-1) !== line.replace(/\d\d$/, "..")) second.push(line.replace(/\d\d$/, ".."));
      if (second.length === 3) break;
    }
    expect(second).toEqual(["1, ..", "[GPU is lost], [GPU is lost]", "1, .."]);
  });

  it("end with 15 when every GPU is lost, with the last document telling why", async () => {
    const path = scenarioFile({
      startedAt: Date.now(),
      gpus: [{ model: "t4", count: 2 }],
      faults: [{ kind: "allLost", afterMs: 900 }],
    });
    const child = start(path, ["-q", "-x", "-lms", "100"]);
    const gone = once(child, "close");
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    expect(await gone).toEqual([15, null]);
    const documents = text.split(/(?=<\?xml)/);
    expect(documents.length).toBeGreaterThan(1);
    expect(documents[0]).toContain("<gpu id=");
    expect(documents.at(-1)?.match(/<error_string>.*GPU is lost<\/error_string>/g)).toHaveLength(2);
  });

  it("read a scenario that was written again", async () => {
    const path = scenarioFile({ gpus: [{ model: "t4", load: 0 }] });
    const child = start(path, [...used, "-lms", "30"]);
    let written = false;
    for await (const line of linesOf(child)) {
      if (!written) writeFileSync(path, JSON.stringify({ gpus: [{ model: "t4", load: 60 }] }));
      written = true;
      if (line.startsWith("0, 60")) break;
    }
    expect(written).toBe(true);
  });
});

describe("faults", () => {
  const t4s = [{ model: "t4", count: 2 }];

  it("come and go with time since the state file was touched", async () => {
    const state = join(folder, "state");
    writeFileSync(state, "");
    utimesSync(state, 1_000, 1_000);
    const scenario = { stateFile: state, gpus: t4s, faults: [{ kind: "driverMissing", afterMs: 1_000, forMs: 1_000 }] };
    const exitAt = async (ms: number) =>
      (await simulate(scenario, ["-L"], { env: { GPUNODE_SIM_NOW: String(1_000_000 + ms) } })).exitCode;
    // The time it is told runs on from there, so the borders are asked for from a distance.
    expect([await exitAt(0), await exitAt(1_000), await exitAt(1_300), await exitAt(2_000)]).toEqual([0, 9, 9, 0]);
  });

  it("hang until killed", async () => {
    const child = start(scenarioFile({ gpus: t4s, faults: [{ kind: "hang", on: ["xml"] }] }), ["-q", "-x"]);
    const ended = await Promise.race([
      once(child, "exit"),
      new Promise((done) => setTimeout(done, 400, "still there")),
    ]);
    expect(ended).toBe("still there");
    expect((await simulate(readFileSync(join(folder, "scenario.json"), "utf8"), ["-L"])).exitCode).toBe(0);
  });

  it("a hang ends with the caller's signal, leaving nothing behind", async () => {
    const answer = simulate({ gpus: t4s, faults: [{ kind: "hang" }] }, ["-L"], { signal: AbortSignal.timeout(60) });
    expect(await answer).toEqual({ stdout: "", stderr: "", exitCode: 143 });
  });

  it("slow answers late", async () => {
    const began = performance.now();
    await simulate({ gpus: t4s, faults: [{ kind: "slow", ms: 150 }] }, ["-L"]);
    expect(performance.now() - began).toBeGreaterThan(140);
  });

  it("half a document stops in the middle", async () => {
    const whole = (await simulate({ gpus: t4s }, ["-q", "-x"])).stdout;
    const { stdout, exitCode } = await simulate({ gpus: t4s, faults: [{ kind: "halfDocument" }] }, ["-q", "-x"]);
    expect(exitCode).toBe(0);
    expect(stdout).not.toContain("</nvidia_smi_log>");
    expect(stdout.length).toBe(Math.floor(whole.length / 2));
  });

  it("garbage is not a document", async () => {
    expect((await simulate({ gpus: t4s, faults: [{ kind: "garbage" }] }, ["-q", "-x"])).stdout).not.toContain(
      "nvidia_smi_log",
    );
  });

  it("a GPU without a handle is a line of its own, the other's row stays", async () => {
    const scenario = { driver: "580", gpus: t4s, faults: [{ kind: "handleFailure", gpu: 0 }] };
    const { stdout, exitCode } = await simulate(scenario, used);
    expect(stdout).toBe(
      "Unable to determine the device handle for GPU0: 0000:1B:00.0: GPU is lost.  Reboot the system to recover this GPU\n1, 0, 0\n",
    );
    expect(exitCode).toBe(15);
  });

  it("values can be overridden by name, in CSV and XML", async () => {
    const values = {
      "ecc.errors.uncorrected.volatile.dram": "3",
      "clocks_event_reasons.hw_thermal_slowdown": "Active",
    };
    const scenario = {
      driver: "580",
      gpus: [{ model: "h100-sxm-80gb" }],
      faults: [{ kind: "override", gpu: 0, values }],
    };
    const { stdout } = await simulate(scenario, [
      `--query-gpu=${Object.keys(values).join(",")}`,
      "--format=csv,noheader",
    ]);
    expect(stdout).toBe("3, Active\n");
    const texts = elementTexts((await simulate(scenario, ["-q", "-x"])).stdout);
    expect(texts.get("ecc_errors/volatile/dram_uncorrectable")).toBe("3");
    expect(texts.get("clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown")).toBe("Active");
  });
});

describe("-i", () => {
  it("takes index, UUID and bus id", async () => {
    const { stdout } = await simulate("h100x8", ["--query-gpu=uuid,pci.bus_id", "--format=csv,noheader"]);
    const [uuid = "", busId = ""] = stdout.split("\n")[5]?.split(", ") ?? [];
    for (const id of ["5", uuid, busId, busId.slice(4), busId.slice(9)]) {
      const { stdout: xml } = await simulate("h100x8", ["-q", "-x", "-i", id]);
      expect(xml.match(/<gpu id="[^"]+">/g)).toEqual([`<gpu id="${busId}">`]);
      expect(xml).toContain("<attached_gpus>8</attached_gpus>");
    }
  });
});

describe("scenarios that cannot be read", () => {
  it.each<[string | object, string]>([
    ["nope", 'scenario "nope" is neither a preset (h100x8, '],
    ["{", "GPUNODE_SIM_SCENARIO is not JSON"],
    [{ gpu: [] }, "gpu: unknown key; known are driver, seed"],
    [{ driver: "340" }, 'driver "340" is not simulated: give a version from 470 to 599'],
    [{ gpus: [{ model: "h1000" }] }, 'gpus[0].model: "h1000" is not simulated; known are h100-sxm-80gb'],
    [{ gpus: [{ model: "t4", count: 99 }] }, "gpus[0].count: expected a number from 1 to 32, found 99"],
    [{ gpus: [{ model: "t4", mig: ["1g.5gb"] }] }, "gpus[0].mig: Tesla T4 has no MIG"],
    [
      { gpus: [{ model: "a100-sxm4-40gb", mig: ["4g.20gb", "4g.20gb"] }] },
      "take 8 compute and 8 memory slices; there are 7 and 8",
    ],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "melt" }] }, "faults[0].kind: expected driverMissing | "],
    [
      { gpus: [{ model: "t4" }], faults: [{ kind: "lostGpu", gpu: 1 }] },
      "faults[0].gpu: expected a number from 0 to 0, found 1",
    ],
  ])("%j", async (scenario, message) => {
    const { stdout, stderr, exitCode } = await simulate(scenario, ["-L"]);
    expect(stderr).toContain(message);
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 78 });
  });
});

it("runs as a process, with nvidia-smi's exit code", () => {
  const run = (scenario: string) =>
    spawnSync(process.execPath, [cli, "-q", "-x"], { env: { GPUNODE_SIM_SCENARIO: scenario }, encoding: "utf8" });
  expect(run("h100x8")).toMatchObject({ status: 0, stderr: "" });
  expect(run("broken-driver")).toMatchObject({ status: 9, stderr: "" });
});
