import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Inventory, readInventory } from "../../src/gpu/nvidia/inventory.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import { FAMILIES, metricsText } from "../../src/metrics/families.ts";
import type { Figures } from "../../src/metrics/figures.ts";
import { metricsPage } from "../../src/metrics/page.ts";
import { simulatedSmi } from "../gpu/nvidia/simulated.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";
import { figuresOf, figuresOfGpus } from "./node-figures.ts";
import { parseExposition, seriesKey } from "./parsed.ts";

type Workload = Snapshot["workloads"][number];

/** The value of a series; undefined where there is none. */
function value(figures: Figures, name: string, labels: Record<string, string> = {}): number | undefined {
  return parseExposition(metricsText(figures)).get(name)?.series.get(seriesKey(name, labels))?.value;
}

/** What the simulator's machine of this scenario tells. */
async function simulated(scenario: object): Promise<Inventory> {
  using machine = simulatedSmi(scenario);
  return await readInventory(machine.smi);
}

/** Labels of the series of a family. */
function series(figures: Figures, name: string): Record<string, string>[] {
  return [...(parseExposition(metricsText(figures)).get(name)?.series.values() ?? [])].map(({ labels }) => labels);
}

const [GPU0, GPU1] = ["GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"];

describe("the families", () => {
  test("have names of their own, within Prometheus' rules, and are described in a sentence", () => {
    expect(new Set(FAMILIES.map(({ name }) => name)).size).toBe(FAMILIES.length);
    for (const { name, help, labels, type } of FAMILIES) {
      expect(name).toMatch(/^(gpunode|nvidia_smi|DCGM_FI_DEV|process|nodejs)_[A-Za-z0-9_]+$/);
      expect(help).toMatch(/^\S.*\S$|^index$/);
      for (const label of labels) expect(label).toMatch(/^[a-zA-Z_][a-zA-Z0-9_]*$/);
      if (name.startsWith("gpunode_"))
        expect([name, type]).toEqual([
          name,
          name.endsWith("_total") ? "counter" : expect.not.stringMatching("counter"),
        ]);
    }
  });

  test("have no labels but those they say", () => {
    const figures = figuresOf();
    for (const { labels, samples, name } of FAMILIES) {
      for (const sample of samples(figures)) {
        for (const label of Object.keys(sample.labels)) if (label !== "le") expect(labels, name).toContain(label);
      }
    }
  });

  test("are those of docs/metrics.md (npm run schema)", () => {
    const page = readFileSync(new URL("../../docs/metrics.md", import.meta.url), "utf8");
    expect(page).toBe(metricsPage(page));
    for (const { name } of FAMILIES) expect(page).toContain(`\`${name}\``);
  });
});

describe("the node", () => {
  test("is in one of its states, with its problems, and told by what it is", () => {
    const figures = figuresOf();
    expect(value(figures, "gpunode_build_info", { version: "0.1.0", nodejs: process.version })).toBe(1);
    expect(
      ["available", "draining", "stopping"].map((state) => value(figures, "gpunode_node_state", { state })),
    ).toEqual([1, 0, 0]);
    expect(value(figures, "gpunode_problem", { code: "disk_low" })).toBe(1);
    expect(value(figures, "gpunode_problems")).toBe(1);
    expect(value(figures, "gpunode_events_unacked")).toBe(2);
    expect(value(figures, "gpunode_pressure_level", { resource: "disk" })).toBe(1);
    expect(value(figures, "gpunode_link_connected")).toBe(1);
    expect(value(figures, "gpunode_link_session_start_time_seconds")).toBe(Date.parse("2026-01-02T01:00:00Z") / 1000);
  });

  test("without a coordinator has no link that could be down", () => {
    const snapshot = exampleSnapshot();
    const { link: _, ...rest } = figuresOf();
    const figures = {
      ...rest,
      snapshot: { ...snapshot, connection: { ...snapshot.connection, state: "off" as const } },
    };
    const text = metricsText(figures);
    expect(text).not.toMatch(/^gpunode_link/m);
    expect(text).not.toMatch(/^gpunode_telemetry_frames/m);
    const waiting = {
      ...figuresOf(),
      snapshot: { ...snapshot, connection: { ...snapshot.connection, state: "waiting" as const } },
    };
    expect(value(waiting, "gpunode_link_connected")).toBe(0);
    expect(value(waiting, "gpunode_link_session_start_time_seconds")).toBeUndefined();
  });

  test("of which nothing is known yet tells no zero for it", () => {
    const figures = figuresOf({ nvidiaSmi: { failedReads: 0 }, state: { isWritable: true } });
    const { sampledAtMs: _, ...rest } = figures;
    const snapshot = { ...exampleSnapshot(), host: { info: exampleSnapshot().host.info } };
    const text = metricsText({ ...rest, snapshot });
    for (const name of [
      "gpunode_sample_timestamp_seconds",
      "gpunode_state_database_bytes",
      "gpunode_host_cpu_utilization_ratio",
      "gpunode_reliability_up_ratio",
      "nvidia_smi_command_exit_code",
      "nvidia_smi_last_collect_success",
    ])
      expect(text).not.toContain(name);
  });
});

describe("GPUs as they are lent", () => {
  test("feel some way, for reasons, and are held by workloads, whole or in parts", () => {
    const figures = figuresOf();
    const zero = { gpu: "0", uuid: GPU0 };
    const one = { gpu: "1", uuid: GPU1 };
    expect(value(figures, "gpunode_gpu_health", { ...zero, status: "healthy" })).toBe(1);
    expect(value(figures, "gpunode_gpu_health", { ...one, status: "healthy" })).toBe(0);
    expect(value(figures, "gpunode_gpu_health", { ...one, status: "degraded" })).toBe(1);
    expect(value(figures, "gpunode_gpu_health_reason", { ...one, code: "ecc_uncorrected" })).toBe(1);
    expect(value(figures, "gpunode_gpu_allocatable", one)).toBe(0);
    expect(series(figures, "gpunode_gpu_holder")).toEqual([
      { ...zero, workload: "train-1" },
      { gpu: "1", uuid: "MIG-a", workload: "small" },
    ]);
  });

  test("a hold of the node holds each of them, one of a GPU or a MIG instance that one", () => {
    const hold = (more: object) => ({ cause: "owner" as const, message: "", since: "2026-01-02T03:00:00Z", ...more });
    const held = (...holds: Snapshot["holds"]) => figuresOf({ snapshot: { ...exampleSnapshot(), holds } });
    const whole = held(hold({}));
    expect(series(whole, "gpunode_gpu_hold").map(({ gpu }) => gpu)).toEqual(["0", "1"]);
    expect(value(whole, "gpunode_node_hold", { cause: "owner" })).toBe(1);
    const part = held(hold({ gpus: ["MIG-a"] }));
    expect(series(part, "gpunode_gpu_hold")).toEqual([{ gpu: "1", uuid: GPU1, cause: "owner" }]);
    expect(series(part, "gpunode_node_hold")).toEqual([]);
  });

  test("their seconds begin at zero, and those of a board that is gone stay", () => {
    const tally = {
      ...figuresOf().tally,
      gpuSeconds: new Map([
        ["GPU-gone", 7],
        [GPU0, 60],
      ]),
    };
    const figures = figuresOf({ tally });
    expect(value(figures, "gpunode_gpu_seconds_total", { gpu: "0", uuid: GPU0 })).toBe(60);
    expect(value(figures, "gpunode_gpu_seconds_total", { gpu: "1", uuid: "MIG-a" })).toBe(0);
    expect(value(figures, "gpunode_gpu_seconds_total", { uuid: "GPU-gone" })).toBe(7);
  });
});

describe("workloads", () => {
  const workload = (id: string, more: Partial<Workload> = {}): Workload => ({
    id,
    generation: 1,
    state: "running",
    image: "team/job:1",
    gpus: [],
    ports: [],
    restarts: 0,
    acceptedAt: "2026-01-02T03:00:00.000Z",
    ...more,
  });
  const having = (...workloads: Workload[]) => figuresOf({ snapshot: { ...exampleSnapshot(), workloads } });

  test("are told by name while they last and ten minutes longer, and all of them are counted", () => {
    // The snapshot is of 03:04:05.
    const figures = having(
      workload("runs"),
      workload("just", { state: "succeeded", finishedAt: "2026-01-02T02:54:06.000Z" }),
      workload("before", { state: "succeeded", finishedAt: "2026-01-02T02:54:04.000Z" }),
    );
    expect(series(figures, "gpunode_workload_info").map((labels) => labels.workload)).toEqual(["runs", "just"]);
    expect(value(figures, "gpunode_workloads", { state: "succeeded" })).toBe(2);
    expect(value(figures, "gpunode_workload_state", { workload: "just", generation: "1", state: "succeeded" })).toBe(1);
  });

  test("are a hundred by name at most, those that run before those that ended", () => {
    const ended = Array.from({ length: 200 }, (_, at) =>
      workload(`e${at}`, { state: "failed", finishedAt: `2026-01-02T03:03:${String(at % 60).padStart(2, "0")}.000Z` }),
    );
    const figures = having(...ended, ...Array.from({ length: 3 }, (_, at) => workload(`r${at}`)));
    const names = series(figures, "gpunode_workload_info").map((labels) => labels.workload);
    expect(names).toHaveLength(100);
    expect(names.slice(0, 3)).toEqual(["r0", "r1", "r2"]);
    expect(value(figures, "gpunode_workloads", { state: "failed" })).toBe(200);
  });

  test("tell what they use in base units, and their notice", () => {
    const figures = having(
      workload("w", {
        restarts: 2,
        healthy: false,
        startedAt: "2026-01-02T03:01:00.000Z",
        notice: { cause: "schedule", deadline: "2026-01-02T03:05:00.000Z" },
        usage: { cpuPercent: 150, memoryMiB: 2, vramUsedMiB: 1024, gpuUtilizationPercent: 50, networkRxBytes: 7 },
      }),
    );
    const labels = { workload: "w", generation: "1" };
    expect(value(figures, "gpunode_workload_cpu_cores", labels)).toBe(1.5);
    expect(value(figures, "gpunode_workload_memory_bytes", labels)).toBe(2 * 1024 ** 2);
    expect(value(figures, "gpunode_workload_vram_bytes", labels)).toBe(1024 ** 3);
    expect(value(figures, "gpunode_workload_gpu_utilization_ratio", labels)).toBe(0.5);
    expect(value(figures, "gpunode_workload_network_receive_bytes_total", labels)).toBe(7);
    expect(value(figures, "gpunode_workload_network_transmit_bytes_total", labels)).toBeUndefined();
    expect(value(figures, "gpunode_workload_restarts_total", labels)).toBe(2);
    expect(value(figures, "gpunode_workload_healthy", labels)).toBe(0);
    expect(value(figures, "gpunode_workload_notice", { ...labels, cause: "schedule" })).toBe(1);
    expect(value(figures, "gpunode_workload_notice_deadline_timestamp_seconds", labels)).toBe(
      Date.parse("2026-01-02T03:05:00Z") / 1000,
    );
  });
});

describe("DCGM_FI_DEV_*", () => {
  test("has the labels of dcgm-exporter, in its order", async () => {
    const figures = figuresOfGpus(await simulated({ gpus: [{ model: "h100-sxm-80gb" }], load: 50 }));
    const [gpu] = figures.snapshot.gpus;
    expect(metricsText(figures)).toContain(
      `\nDCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="${gpu?.uuid}",pci_bus_id="${gpu?.pci?.busId}",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="rig-01",DCGM_FI_DRIVER_VERSION="${gpu?.driverVersion}"} 50\n`,
    );
  });

  test("tells the memory of a split GPU by its instances, so that a sum over all is the machine's", async () => {
    const figures = figuresOfGpus(
      await simulated({
        gpus: [{ model: "a100-sxm4-40gb", mig: ["3g.20gb", "2g.10gb"] }, { model: "a100-sxm4-40gb" }],
      }),
    );
    const used = series(figures, "DCGM_FI_DEV_FB_USED");
    expect(used.map(({ gpu, GPU_I_PROFILE }) => `${gpu} ${GPU_I_PROFILE ?? ""}`)).toEqual([
      "0 3g.20gb",
      "0 2g.10gb",
      "1 ",
    ]);
    expect(used.map(({ GPU_I_ID }) => GPU_I_ID)).toEqual([expect.any(String), expect.any(String), undefined]);
    // What the board has as a whole is told of the board.
    expect(series(figures, "DCGM_FI_DEV_GPU_TEMP").map(({ gpu }) => gpu)).toEqual(["0", "1"]);
  });

  test("has the last Xid of each GPU, and none for those without", async () => {
    const inventory = await simulated({ gpus: [{ model: "t4", count: 2 }] });
    const [first] = inventory.gpus;
    const told = { gpu: first?.uuid ?? "", count: 1 };
    const xids = [
      { ...told, xid: 79, lastAtMs: 2_000 },
      { ...told, xid: 13, lastAtMs: 1_000 },
    ];
    const figures = { ...figuresOfGpus(inventory), xids };
    const family = parseExposition(metricsText(figures)).get("DCGM_FI_DEV_XID_ERRORS");
    expect([...(family?.series.values() ?? [])].map(({ labels, value: last }) => [labels.gpu, last])).toEqual([
      ["0", 79],
      ["1", 0],
    ]);
    const { xids: _, ...unread } = figures;
    expect(series(unread, "DCGM_FI_DEV_XID_ERRORS")).toEqual([]);
    const uuid = first?.uuid.slice(4).toLowerCase() ?? "";
    expect(value(figures, "nvidia_smi_xid_last_timestamp_seconds", { uuid, xid: "79" })).toBe(2);
  });
});

describe("what changes between full reads", () => {
  test("comes from the newest sample, the rest from the last read", async () => {
    const inventory = await simulated({ gpus: [{ model: "h100-sxm-80gb" }], load: 0 });
    const [read] = inventory.samples;
    const uuid = read?.uuid ?? "";
    const labels = { uuid: uuid.slice(4).toLowerCase() };
    const before = figuresOfGpus(inventory);
    const now = figuresOfGpus(inventory, [
      {
        uuid,
        utilizationPercent: 90,
        vramUsedMiB: 40_000,
        vramTotalMiB: 81_559,
        vramReservedMiB: 480,
        throttleReasons: ["sw_power_cap", "hw_slowdown"],
      },
    ]);
    expect(value(now, "nvidia_smi_utilization_gpu_ratio", labels)).toBe(0.9);
    expect(value(now, "nvidia_smi_memory_free_bytes", labels)).toBe((81_559 - 40_000 - 480) * 1024 ** 2);
    expect(value(now, "nvidia_smi_clocks_event_reasons_active", labels)).toBe(0x4 | 0x8);
    expect(value(now, "nvidia_smi_clocks_event_reasons_sw_power_cap", labels)).toBe(1);
    expect(value(now, "nvidia_smi_clocks_event_reasons_gpu_idle", labels)).toBe(0);
    for (const name of ["nvidia_smi_pstate", "nvidia_smi_temperature_gpu", "nvidia_smi_clocks_max_sm_clock_hz"])
      expect(value(now, name, labels)).toBe(value(before, name, labels));
    expect(value(before, "nvidia_smi_pstate", labels)).toBeDefined();
  });

  test("a GPU that is lost tells who it is, and nothing of how it is", async () => {
    const figures = figuresOfGpus(
      await simulated({ gpus: [{ model: "t4", count: 2 }], faults: [{ kind: "lostGpu", gpu: 1 }] }),
    );
    const lost = figures.snapshot.gpus[1];
    const labels = { gpu: "1", uuid: lost?.uuid ?? "" };
    expect(value(figures, "gpunode_gpu_health", { ...labels, status: "failed" })).toBe(1);
    expect(series(figures, "nvidia_smi_temperature_gpu")).toHaveLength(1);
    expect(series(figures, "nvidia_smi_gpu_info")).toHaveLength(2);
  });
});
