import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { DCGM_BOARD, EXPORTER_BOARD, filledIn, ownBoard, queriesOf } from "../metrics/boards.ts";
import { type ParsedFamily, parseExposition, seriesKey } from "../metrics/parsed.ts";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { havePrometheus, Prometheus, promtool, whyNoPrometheus } from "../support/prometheus.ts";
import { patiently, Rig, Site } from "./rig.ts";
import { sh, stays } from "./story.ts";

const LISTEN = "127.0.0.1:0";

/** Where this daemon is scraped, without a look at it: who looks has samples taken. */
async function targetOf(rig: Rig): Promise<URL> {
  const page = await patiently(() => /"url":"(http:[^"]+)"/.exec(rig.log)?.[1]);
  return new URL("/metrics", page);
}

async function scrape(target: URL): Promise<{ text: string; families: Map<string, ParsedFamily> }> {
  const answer = await fetch(target);
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const text = await answer.text();
  return { text, families: parseExposition(text) };
}

function figureOf(families: Map<string, ParsedFamily>, name: string, labels: Record<string, string> = {}) {
  return families.get(name)?.series.get(seriesKey(name, labels))?.value;
}

/** A panel that is empty where all is well; with a broken driver it is not, see below. */
const OF_PROBLEMS = "What keeps it from being all it could be";

/** Names that others have chosen break Prometheus' rules for names. */
const CHOSEN_BY_OTHERS = /^(DCGM_FI_DEV|nvidia_smi)_/;

const SCENARIOS: readonly (readonly [string, string, number])[] = [
  ["eight GPUs", "h100x8", 8],
  ["GPUs split by MIG", "a100x4-mig", 4],
  [
    "a GPU that is lost",
    JSON.stringify({ gpus: [{ model: "l40s", count: 2 }], faults: [{ kind: "lostGpu", gpu: 1 }] }),
    2,
  ],
  [
    "processes with hostile names",
    JSON.stringify({ gpus: [{ model: "t4" }], faults: [{ kind: "hostileNames", gpu: 0 }] }),
    1,
  ],
  ["no GPU", "none", 0],
  ["a driver that is not loaded", "broken-driver", 0],
];

describe.runIf(haveEngine && havePrometheus)(`what Prometheus gets of a node${whyNoPrometheus}`, () => {
  test.each(SCENARIOS)("with %s is sound to promtool", async (_, scenario, gpus) => {
    await using rig = new Rig({ env: { GPUNODE_SIM_SCENARIO: scenario }, listen: LISTEN });
    rig.start();
    const { text, families } = await scrape(await targetOf(rig));
    const { said } = await promtool(["check", "metrics"], text);
    const ours = said.split("\n").filter((line) => line !== "" && !CHOSEN_BY_OTHERS.test(line));
    expect(ours).toEqual([]);
    expect(families.get("gpunode_gpu_info")?.series.size ?? 0).toBe(gpus);
    expect(families.get("nvidia_smi_gpu_info")?.series.size ?? 0).toBe(gpus);
    expect(figureOf(families, "nvidia_smi_last_collect_success")).toBe(scenario === "broken-driver" ? 0 : 1);
    if (scenario === "broken-driver") expect(figureOf(families, "gpunode_problem", { code: "no_driver" })).toBe(1);
    for (const name of ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"])
      expect(figureOf(families, name), name).toBeGreaterThan(0);
  });

  test("is what its board and its alert rules ask for, and boards that are there already", {
    timeout: 120_000,
  }, async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-metrics-"));
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const kernelLog = join(dir, "kern.log");
    writeFileSync(kernelLog, "");
    const image = await pushImage("agent/metrics:1", await smallImage());
    await using site = await Site.open({
      listen: LISTEN,
      scenario: JSON.stringify({
        gpus: [
          { model: "rtx-4090", count: 2, load: 40 },
          { model: "a100-sxm4-40gb", mig: ["3g.20gb", "1g.5gb"] },
          { model: "h100-sxm-80gb", processes: [{ pid: 1, name: "of the owner", usedMiB: 500, type: "C" }] },
        ],
      }),
      env: { GPUNODE_NVIDIA_KERNEL_LOG: kernelLog, GPUNODE_TELEMETRY_HEALTH_INTERVAL_SECONDS: "2" },
    });
    const target = await targetOf(site.rig);
    await using prometheus = await Prometheus.start(configuration(target));
    for (const id of ["stays", "goes"])
      await site.client.submit({ id, image, command: stays, gpus: { count: 1 }, stop: { graceSeconds: 5 } });
    await site.client.submit({ id: "done", image, command: sh("sleep 2") });
    await site.client.submit({ id: "fails", image, command: sh("exit 3") });
    await Promise.all(["stays", "goes"].map((id) => site.reaches(id, "running")));
    const { gpus, workloads } = site.rig.status();
    const going = gpus.find(({ uuid }) => workloads.find(({ id }) => id === "goes")?.gpus[0] === uuid);
    const bus = gpus[3]?.pci?.busId.slice(4, -2).toLowerCase();
    appendFileSync(kernelLog, `[1.0] NVRM: Xid (PCI:${bus}): 31, pid=1, name=python, MMU Fault.\n`);
    expect(site.rig.gpunode("reclaim", "--gpu", String(going?.index)).status).toBe(0);
    await Promise.all(["goes", "done", "fails"].map((id) => site.ends(id)));

    // Counters move between two scrapes, and the newest has seen the end of all of it.
    const isSeen = async () => {
      const [ended] = await prometheus.query("sum(gpunode_workload_finished_total)");
      const [scrapes] = await prometheus.query("min(count_over_time(gpunode_workload_finished_total[1m]))");
      return Number(ended?.value[1]) === 3 && Number(scrapes?.value[1]) >= 5 ? true : undefined;
    };
    await patiently(isSeen, 60_000);

    const empty: string[] = [];
    await patiently(async () => {
      empty.length = 0;
      for (const { panel, expression } of queriesOf(ownBoard())) {
        const result = await prometheus.query(filledIn(expression));
        const isEmpty = result.length === 0 || result.some(({ value }) => Number.isNaN(Number(value[1])));
        if (isEmpty && panel !== OF_PROBLEMS) empty.push(panel);
      }
      return empty.length === 0 ? true : undefined;
    }, 30_000).catch(() => undefined);
    expect(empty).toEqual([]);

    for (const expression of documented())
      expect((await prometheus.query(expression)).length, expression).toBeGreaterThan(0);

    for (const { title, told } of [DCGM_BOARD, EXPORTER_BOARD])
      for (const name of told) {
        // Of one GPU at least: not every board has each of them.
        expect((await prometheus.query(`count(${name})`)).length, `${title}: ${name}`).toBe(1);
      }

    const rules = await patiently(async () => {
      const all = await prometheus.rules();
      return all.length > 0 && all.every(({ health }) => health !== "unknown") ? all : undefined;
    });
    expect(rules.filter(({ health }) => health !== "ok")).toEqual([]);
    expect(await prometheus.query('up{job="gpunode"} == 0')).toEqual([]);
    expect(prometheus.said).toBe("");

    const { families } = await scrape(target);
    expect(figureOf(families, "gpunode_workload_finished_total", { state: "succeeded", reason: "" })).toBe(1);
    expect(figureOf(families, "gpunode_preemptions_total", { cause: "owner" })).toBe(1);
    const notices = families.get("gpunode_preemption_notice_seconds")?.series;
    expect(notices?.get(seriesKey("gpunode_preemption_notice_seconds_count", {}))?.value).toBe(1);
    expect(figureOf(families, "gpunode_link_connected")).toBe(1);
    const uuid = going?.uuid ?? "";
    expect(figureOf(families, "gpunode_gpu_hold", { gpu: String(going?.index), uuid, cause: "owner" })).toBe(1);
    expect(figureOf(families, "gpunode_gpu_seconds_total", { gpu: String(going?.index), uuid })).toBeGreaterThan(0);
    expect(
      figureOf(families, "nvidia_smi_xid_errors_total", {
        uuid: gpus[3]?.uuid.slice(4).toLowerCase() ?? "",
        xid: "31",
      }),
    ).toBe(1);
    await site.client.release("stays");
    await site.ends("stays");
  });
});

describe.runIf(haveEngine)("scraping", () => {
  test("again and again has one sample stream, and starts no nvidia-smi for a scrape", async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-metrics-"));
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const [smi, calls] = [join(dir, "nvidia-smi"), join(dir, "calls")];
    const simulator = resolve(import.meta.dirname, "../../bin/nvidia-smi-sim.js");
    writeFileSync(smi, `#!/bin/sh\necho "$*" >> '${calls}'\nexec '${process.execPath}' '${simulator}' "$@"\n`, {
      mode: 0o755,
    });
    const begun = (part: string) =>
      readFileSync(calls, "utf8")
        .split("\n")
        .filter((line) => line.includes(part));
    await using rig = new Rig({ listen: LISTEN, smi });
    rig.start();
    const target = await targetOf(rig);
    const sampledAt = async () => figureOf((await scrape(target)).families, "gpunode_sample_timestamp_seconds") ?? 0;
    const goesOnFrom = async (since: number) =>
      await patiently(async () => ((await sampledAt()) > since + 3 ? true : undefined), 60_000);
    await goesOnFrom(await sampledAt());
    const [streams, reads] = [begun("-lms").length, begun("-q -x").length];
    for (let scrapes = 0; scrapes < 30; scrapes += 1) await scrape(target);
    await goesOnFrom(await sampledAt());
    expect([streams, begun("-lms").length]).toEqual([1, 1]);
    // The one that comes each minute may fall into it.
    expect(begun("-q -x").length - reads).toBeLessThanOrEqual(1);
  });

  test("while sampling is paused tells who the GPUs are, and not how they were", async () => {
    await using rig = new Rig({ listen: LISTEN });
    rig.start();
    const target = await targetOf(rig);
    expect(figureOf((await scrape(target)).families, "gpunode_problems")).toBeGreaterThanOrEqual(0);
    expect((await scrape(target)).text).toContain("\nnvidia_smi_temperature_gpu{");
    expect(rig.gpunode("pause-sampling").status).toBe(0);
    const { text, families } = await scrape(target);
    expect(families.get("nvidia_smi_gpu_info")?.series.size).toBe(2);
    expect(text).not.toMatch(/^(nvidia_smi_temperature|nvidia_smi_pstate|DCGM_FI_DEV_GPU_TEMP)/m);
    expect(figureOf(families, "gpunode_problem", { code: "sampling_paused" })).toBe(1);
    expect(rig.gpunode("resume-sampling").status).toBe(0);
    await patiently(async () => (/^nvidia_smi_temperature/m.test((await scrape(target)).text) ? true : undefined));
  });
});

/** The expressions of docs/metrics.md. */
function documented(): string[] {
  const page = readFileSync(resolve(import.meta.dirname, "../../docs/metrics.md"), "utf8");
  const block = /```promql\n([\s\S]*?)```/.exec(page)?.[1] ?? "";
  const expressions = block.split(/^#.*$/m).filter((part) => part.trim() !== "");
  expect(expressions.length).toBeGreaterThan(2);
  return expressions;
}

function configuration(target: URL): string {
  return JSON.stringify({
    global: { scrape_interval: "1s", evaluation_interval: "1s" },
    rule_files: [resolve(import.meta.dirname, "../../examples/prometheus/gpunode.rules.yml")],
    scrape_configs: [{ job_name: "gpunode", static_configs: [{ targets: [target.host] }] }],
  });
}
