import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { fixture, fixtureFiles, haveFixtures } from "../../support/fixtures.ts";
import { elementPaths, elementTexts, simulate } from "./run.ts";

/** Recordings whose board and driver the simulator plays; processes differ with what happened to run. */
const documents: readonly (readonly [file: string, driver: string, gpu: object])[] = [
  ["xml/tesla-t4-515.105.01-telegraf.xml", "515.105.01", { model: "t4" }],
  ["xml/a100-sxm4-v12-535.54.03-telegraf.xml", "535.54.03", { model: "a100-sxm4-80gb", mig: ["1g.20gb", "1g.20gb"] }],
  ["xml/a100-sxm4-40gb-570.148.08-1gpu.xml", "570.148.08", { model: "a100-sxm4-40gb" }],
  ["xml/h100-sxm-580.105.08-8gpu.xml", "580.105.08", { model: "h100-sxm-80gb", count: 8 }],
  ["xml/rtx-3090-v12-525.147.05-telegraf.xml", "525.147.05", { model: "rtx-3080" }],
  ["xml/rtx-3080-v12-536.40-telegraf.xml", "536.40", { model: "rtx-3080" }],
  ["xml/rtx-3080-v13-595.58.03-telegraf.xml", "595.58.03", { model: "rtx-3080" }],
  ["xml/l40s-595.91.07-1gpu.xml", "595.91.07", { model: "l40s" }],
];

const withoutProcesses = (paths: readonly string[]) => paths.filter((path) => !path.startsWith("processes/"));

describe.runIf(haveFixtures)("-q -x against recorded documents", () => {
  it.each(documents)("%s has the same elements in the same order", async (file, driver, gpu) => {
    const recorded = fixture(file);
    const { stdout, exitCode } = await simulate({ driver, gpus: [gpu] }, ["-q", "-x"]);
    expect(exitCode).toBe(0);
    expect(withoutProcesses(elementPaths(stdout))).toEqual(withoutProcesses(elementPaths(recorded)));
    // Same envelope: declaration, document type, root, and what stands before the first GPU.
    const head = (text: string) =>
      [...(text.split("<gpu id")[0] ?? "").matchAll(/<[?!/]?[\w ."=]*>?/g)].map(([tag]) =>
        tag.replace(/ encoding.*| *$/, ""),
      );
    expect(head(stdout)).toEqual(head(recorded));
    expect(stdout.trimEnd().endsWith("</gpu>\n\n</nvidia_smi_log>")).toBe(true);
  });

  it.each(documents)("%s has values of the same form", async (file, driver, gpu) => {
    const recorded = elementTexts(fixture(file));
    const simulated = elementTexts((await simulate({ driver, gpus: [gpu] }, ["-q", "-x"])).stdout);
    const differing: string[] = [];
    for (const [path, text] of recorded) {
      if (/^(processes|accounted|pci\/pci_(bus|device)$)/.test(path)) continue;
      const other = simulated.get(path) ?? "(none)";
      // The unit is the form; which words stand for "none" may depend on the day and the slot.
      const unit = (value: string) => /^-?[\d.]+( ?[A-Za-z%/()]+)?$/.exec(value)?.[1] ?? "";
      const number = (value: string) => /^-?[\d.]+( ?[A-Za-z%/()]+)?$/.test(value);
      if (number(text) && number(other) && unit(text) !== unit(other))
        differing.push(`${path}: "${text}" / "${other}"`);
    }
    expect(differing).toEqual([]);
  });

  it("470 is what 460 was, with three elements more", async () => {
    const { stdout } = await simulate({ driver: "470", gpus: [{ model: "v100-pcie-32gb" }] }, ["-q", "-x"]);
    const added = ["gpu_module_id", "gsp_firmware_version", "voltage", "voltage/graphics_volt"];
    const recorded = elementPaths(fixture("xml/datakit-gtx-1card-460.39.xml"));
    expect(withoutProcesses(elementPaths(stdout)).filter((path) => !added.includes(path))).toEqual(
      withoutProcesses(recorded),
    );
  });

  it("repeats the same elements for each of eight GPUs", async () => {
    const { stdout } = await simulate("h100x8", ["-x", "-q"]);
    for (let index = 1; index < 8; index++) expect(elementPaths(stdout, index)).toEqual(elementPaths(stdout, 0));
    const recorded = fixture("xml/h100-sxm-580.105.08-8gpu.xml");
    expect(Math.abs(stdout.split("\n").length - recorded.split("\n").length)).toBeLessThan(80);
  });
});

const helpFiles = fixtureFiles("text/help", ".txt").filter((file) =>
  /help-query-gpu-(470|510|515|525|535|545|550|580|595)\./.test(basename(file)),
);
const quoted = (text: string) =>
  text
    .split("\n")
    .filter((line) => /^"[^"]+"( or "[^"]+")*\s*$/.test(line))
    .map((line) => line.trim());

describe.runIf(haveFixtures)("--query-gpu against recorded drivers", () => {
  it.each(helpFiles)("%s: the same properties in the same order, each answered", async (file) => {
    const driver = /help-query-gpu-([\d.]+)\.txt$/.exec(file)?.[1] ?? "";
    const text = fixture(`text/help/${basename(file)}`);
    const scenario = { driver, gpus: [{ model: "h100-sxm-80gb" }] };
    const help = await simulate(scenario, ["--help-query-gpu"]);
    expect(quoted(help.stdout)).toEqual(quoted(text));
    const names = quoted(text).flatMap((line) => [...line.matchAll(/"([^"]+)"/g)].map(([, name]) => name ?? ""));
    const { stdout, exitCode } = await simulate(scenario, [`--query-gpu=${names.join(",")}`, "--format=csv,noheader"]);
    expect(exitCode).toBe(0);
    expect(stdout.trimEnd().split(", ")).toHaveLength(names.length);
  });

  const captures = fixtureFiles("captures", ".txt").filter((file) => /linux.*__(590|595)\./.test(file));
  const model = (file: string) =>
    file.includes("h100")
      ? "h100-sxm-80gb"
      : file.includes("h200")
        ? "h200-sxm-141gb"
        : file.includes("l40s")
          ? "l40s"
          : "rtx-3080";

  it.each(captures)("%s: the same header, and values of the same form", async (file) => {
    const text = fixture(`captures/${basename(file)}`);
    const driver = /__([\d.]+)\.txt$/.exec(file)?.[1] ?? "";
    const [, names = "", header = "", row = ""] =
      /\$ nvidia-smi --query-gpu=(\S+) --format=csv.*\n#+\n(.*)\n(.*)\n/.exec(text) ?? [];
    expect(names.length).toBeGreaterThan(1000);
    const gpu = {
      model: model(file),
      ...(file.includes("mig") && { mig: ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"] }),
    };
    const { stdout } = await simulate({ driver, gpus: [gpu] }, [`--query-gpu=${names}`, "--format=csv"]);
    const [simulatedHeader = "", simulatedRow = ""] = stdout.split("\n");
    expect(simulatedHeader).toBe(header);
    const form = (cell: string) => cell.replace(/-?\d+(\.\d+)?/g, "#");
    const columns = header.split(", ");
    const [recorded, simulated] = [row.split(", "), simulatedRow.split(", ")];
    expect(simulated).toHaveLength(recorded.length);
    // Where the two differ in form, one is "not there" and the other is: the board of the recording has or lacks a part.
    const differing = columns.filter((_, at) => {
      const [a = "", b = ""] = [recorded[at], simulated[at]];
      if (form(a) === form(b) || /N\/A/.test(a) !== /N\/A/.test(b)) return false;
      return /[\d.]+ (MiB|W|%|MHz|us)$/.test(a) || a.startsWith("[") || b.startsWith("[");
    });
    expect(differing).toEqual([]);
  });

  it("compute-apps has the recorded header", async () => {
    const argv = ["--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory", "--format=csv"];
    expect(await simulate("h100x8", argv)).toMatchObject({
      stdout: fixture("real-binary-mock-nvml/compute-apps-none.stdout"),
      exitCode: 0,
    });
  });
});

const failures: readonly (readonly [folder: string, fault: string])[] = [
  ["failure/no-driver", "driverMissing"],
  ["failure/no-library", "libraryMissing"],
  ["failure/nvml-init-error-stub", ""],
];
const stubFaults: Readonly<Record<string, string>> = {
  "driver-library-mismatch": "mismatch",
  "insufficient-permissions": "permission",
  "gpu-is-lost": "allLost",
};
const commandLines: Readonly<Record<string, readonly string[]>> = {
  default: [],
  qx: ["-q", "-x"],
  L: ["-L"],
  "query-gpu": ["--query-gpu=index", "--format=csv"],
  "help-query-gpu": ["--help-query-gpu"],
  topo: ["topo", "-m"],
  lms: ["--query-gpu=index", "--format=csv", "-lms", "500"],
};
const recordedFailures = failures.flatMap(([folder, fault]) =>
  fixtureFiles(folder, ".stdout").flatMap((file) => {
    const [, what = "", driver = ""] = /^(.*)-(\d{3}\.[\d.]+)\.stdout$/.exec(basename(file)) ?? [];
    const kind = fault || stubFaults[what];
    const argv = fault === "" ? ["-q", "-x"] : commandLines[what];
    if (kind === undefined || argv === undefined || Number.parseInt(driver, 10) < 470) return [];
    return [{ name: `${what} ${driver}`, kind, driver, argv, path: `${folder}/${basename(file, ".stdout")}` }];
  }),
);

describe.runIf(haveFixtures)("failures, byte for byte", () => {
  it("covers what was recorded", () => expect(recordedFailures.length).toBeGreaterThan(60));

  it.each(recordedFailures)("$kind: $name", async ({ kind, driver, argv, path }) => {
    const answer = await simulate({ driver, gpus: [{ model: "t4" }], faults: [{ kind }] }, argv);
    expect(answer.stdout).toBe(fixture(`${path}.stdout`));
    expect(answer.stderr).toBe("");
    expect(answer.exitCode).toBe(Number(fixture(`${path}.rc`)));
  });

  it.each([
    ["err-bad-field", ["--query-gpu=nonsense.field", "--format=csv"]],
    ["err-bad-gpu-id", ["-i", "99", "-q", "-x"]],
    ["err-bad-gpu-id-query", ["-i", "99", "--query-gpu=index", "--format=csv"]],
    ["err-bad-uuid", ["-i", "GPU-nope", "-L"]],
    ["err-bad-option", ["--frobnicate"]],
    ["err-no-format", ["--query-gpu=index"]],
    ["mig-lgi", ["mig", "-lgi"]],
  ])("%s", async (name, argv) => {
    const answer = await simulate("h100x8", argv);
    expect(answer.stdout).toBe(fixture(`real-binary-mock-nvml/${name}.stdout`));
    expect(answer.exitCode).toBe(Number(fixture(`real-binary-mock-nvml/${name}.rc`)));
  });

  it("no device", async () => {
    const answer = await simulate("none", []);
    expect(answer).toMatchObject({ stdout: fixture("real-binary-mock-nvml/zero-default.stdout"), exitCode: 6 });
  });
});

describe.runIf(haveFixtures)("text against recordings", () => {
  const anonymous = (text: string) => text.replace(/[GM][PI][UG]-[0-9a-f-]{36}/g, "UUID");

  it("-L", async () => {
    const { stdout } = await simulate("h100x8", ["-L"]);
    expect(anonymous(stdout)).toBe(anonymous(fixture("real-binary-mock-nvml/h100x8-healthy-L.stdout")));
  });

  it("-L with MIG devices", async () => {
    const capture = fixture("captures/linux-x86_64__nvidia-h100-mig__590.48.01.txt");
    const recorded = /\$ nvidia-smi -L\n#+\n([\s\S]*?)\n\n/.exec(capture)?.[1];
    const gpus = [{ model: "h100-sxm-80gb", mig: ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"] }];
    const { stdout } = await simulate({ driver: "590", gpus }, ["-L"]);
    expect(anonymous(stdout.trimEnd())).toBe(anonymous(recorded ?? ""));
  });

  it("topo -m", async () => {
    const { stdout } = await simulate("h100x8", ["topo", "-m"]);
    // The recorded stub says GPU NUMA ID 0 and 1; boards without memory nodes of their own say N/A, as we do.
    const recorded = fixture("real-binary-mock-nvml/topo-m.stdout").replace(/\t\t[01]\n/g, "\t\tN/A\n");
    expect(stdout).toBe(recorded);
  });

  it("nvlink -s", async () => {
    const { stdout } = await simulate("h100x8", ["nvlink", "-s"]);
    expect(anonymous(stdout)).toBe(anonymous(fixture("real-binary-mock-nvml/nvlink-s.stdout")));
  });

  it("--version", async () => {
    const capture = fixture("captures/linux-x86_64__nvidia-h200__590.48.01.txt");
    const { stdout } = await simulate({ driver: "590.48.01", gpus: [] }, ["--version"]);
    expect(capture).toContain(`$ nvidia-smi --version\n${"#".repeat(80)}\n${stdout}`);
  });

  it.each([
    ["470.256.02", "-470.256.02"],
    ["535.261.03", "-535.261.03"],
    ["550.163.01", "-550.163.01"],
    ["580.178.04", ""],
    ["595.99.02", "-595.99.02"],
  ])("summary of driver %s with a lost GPU", async (driver, suffix) => {
    const recorded = fixture(`real-binary-mock-nvml/lost-gpu2-default${suffix}.stdout`);
    const scenario = { driver, gpus: [{ model: "h100-sxm-80gb", count: 8 }], faults: [{ kind: "lostGpu", gpu: 2 }] };
    const { stdout, exitCode } = await simulate(scenario, []);
    expect(exitCode).toBe(15);
    // The values that differ are made the same; the rest is byte for byte.
    const plain = (text: string) =>
      text
        .replace(/^.*\n/, "")
        .replace(/Driver Version: [\d.]+ +CUDA Version: [\d.]+ +/, "")
        .replace(/00000000:..:/g, "00000000:..:")
        .replace(/ \d\dC/g, " ..C")
        .replace(/(\d)\dW \/ /g, "..W / ")
        .replace(/81559|81920/g, "VRAMM");
    expect(plain(stdout)).toBe(plain(recorded));
  });

  it("summary of MIG devices", async () => {
    const capture = fixture("captures/linux-x86_64__nvidia-h100-mig__590.48.01.txt");
    const recorded = /\| MIG devices:[\s\S]*?\n\n/.exec(capture)?.[0] ?? "";
    const gpus = [{ model: "h100-sxm-80gb", mig: ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"] }];
    const { stdout } = await simulate({ driver: "590", gpus }, []);
    const shown = /\| MIG devices:[\s\S]*?\n\n/.exec(stdout)?.[0] ?? "";
    const plain = (text: string) => text.replace(/ +\d+MiB \/ +\d+MiB/g, (cell) => "m".repeat(cell.length));
    expect(plain(shown)).toBe(plain(recorded));
  });

  it.each([
    ["captures/linux-x86_64__nvidia-h200__590.48.01.txt", "590.48.01"],
    ["captures/linux-x86_64__nvidia-geforce-rtx-2080-super__595.71.05.txt", "595.71.05"],
  ])("process rows of %s", async (file, driver) => {
    const table = fixture(file).split("load :: nvidia-smi (default table)")[1] ?? "";
    const rows = [...table.matchAll(/^\| +0 +N\/A +N\/A +(\d+) +([CG]) +(\S+) +(\d+)MiB \|$/gm)];
    const processes = rows.map(([, pid, type, name, usedMiB]) => ({
      pid: Number(pid),
      type,
      name,
      usedMiB: Number(usedMiB),
    }));
    expect(rows.length).toBeGreaterThan(2);
    const { stdout } = await simulate({ driver, gpus: [{ model: "h200-sxm-141gb", processes }] }, []);
    for (const [row] of rows) expect(stdout).toContain(row);
  });
});

describe.runIf(haveFixtures)("faults against recordings", () => {
  const lost = {
    driver: "580.178.04",
    gpus: [{ model: "h100-sxm-80gb", count: 8 }],
    faults: [{ kind: "lostGpu", gpu: 2 }],
  };

  it("a lost GPU loses the recorded cells", async () => {
    const fields = "index,uuid,name,temperature.gpu,memory.used,utilization.gpu,pstate,power.draw";
    const { stdout, exitCode } = await simulate(lost, [`--query-gpu=${fields}`, "--format=csv"]);
    expect(exitCode).toBe(0);
    const cells = (text: string) =>
      text
        .split("\n")[3]
        ?.split(", ")
        .map((cell) => cell.startsWith("["));
    expect(cells(stdout)).toEqual(cells(fixture("real-binary-mock-nvml/lost-gpu2-query.stdout")));
  });

  it("a lost GPU loses the recorded elements", async () => {
    const recorded = elementTexts(fixture("real-binary-mock-nvml/lost-gpu2-qx.stdout"), 2);
    const { stdout, exitCode } = await simulate(lost, ["-q", "-x"]);
    expect(exitCode).toBe(0);
    const gone = (texts: Map<string, string>) =>
      [...texts].filter(([, text]) => text === "GPU is lost").map(([path]) => path);
    // The stub had no power smoothing of its own to lose, and its fabric told its health.
    const health = (path: string) => !path.startsWith("fabric/health/");
    expect(gone(elementTexts(stdout, 2)).filter(health)).toEqual(gone(recorded).filter(health));
  });

  it("hostile process names are written as recorded", async () => {
    const scenario = { driver: "580.178.04", gpus: [{ model: "h100-sxm-80gb" }], faults: [{ kind: "hostileNames" }] };
    const names = (text: string) =>
      [...text.matchAll(/<process_name>([\s\S]*?)<\/process_name>/g)].map(([, name]) => name);
    const { stdout } = await simulate(scenario, ["-q", "-x"]);
    expect(names(stdout)).toEqual(names(fixture("real-binary-mock-nvml/hostile-process-name-qx-580.178.04.stdout")));
    const apps = await simulate(scenario, [
      "--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory",
      "--format=csv",
    ]);
    const anonymous = (text: string) => text.replace(/GPU-[0-9a-f-]{36}/g, "UUID");
    expect(anonymous(apps.stdout)).toBe(
      anonymous(fixture("real-binary-mock-nvml/hostile-process-name-compute-apps-580.178.04.stdout")),
    );
  });
});
