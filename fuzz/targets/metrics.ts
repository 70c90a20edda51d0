import { detailsOf } from "../../src/gpu/nvidia/details.ts";
import { PROPERTIES } from "../../src/gpu/nvidia/properties.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import { FAMILIES, metricsText } from "../../src/metrics/families.ts";
import type { Figures } from "../../src/metrics/figures.ts";
import { Tally } from "../../src/metrics/tally.ts";
import { Hold, Problem, Reliability } from "../../src/protocol/agent-frames.ts";
import { type DurableEvent, EventBody } from "../../src/protocol/event.ts";
import { Gpu, GpuTelemetry } from "../../src/protocol/gpu.ts";
import { WORKLOAD_STATES } from "../../src/protocol/workload.ts";
import { figuresOf } from "../../test/metrics/node-figures.ts";
import { parseExposition } from "../../test/metrics/parsed.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileNumber, hostileText } from "../hostile.ts";
import { ensure, plainGroup, target } from "../target.ts";

const PATHS = [
  "uuid",
  "minor_number",
  "serial",
  "pci/pci_sub_system_id",
  "driver_model/current_dm",
  "performance_state",
];
const WORDS = ["N/A", "12 %", "P0", "Enabled", "0x1", "99999999999999999999 MiB", "-3 C", "1.5.2 W", "[GPU is lost]"];

/** What nvidia-smi said of a GPU, whatever that was. */
function raw(draw: Draw): ReadonlyMap<string, string> {
  const path = () =>
    draw.any(
      () => draw.of(PATHS),
      () => `${draw.of(["gpu_power_readings", "clocks", "remapped_rows"])}/${hostileText(draw)}`,
    );
  return new Map(
    draw.list(
      12,
      () =>
        [
          path(),
          draw.any(
            () => draw.of(WORDS),
            () => hostileText(draw),
          ),
        ] as const,
    ),
  );
}

function workload(draw: Draw): Snapshot["workloads"][number] {
  const isOver = draw.once(2);
  return {
    id: hostileText(draw),
    generation: draw.below(3),
    state: draw.of(WORKLOAD_STATES),
    image: hostileText(draw),
    gpus: [],
    ports: [],
    restarts: draw.below(3),
    acceptedAt: hostileText(draw),
    ...(isOver && { finishedAt: draw.of(["2026-01-02T03:04:00.000Z", hostileText(draw)]) }),
    notice: { cause: "owner", deadline: hostileText(draw) },
    usage: { cpuPercent: hostileNumber(draw), memoryMiB: hostileNumber(draw), networkRxBytes: hostileNumber(draw) },
  };
}

/** A node of which anything may be true, also what no schema lets in. */
function figures(draw: Draw): Figures {
  const base = figuresOf();
  const gpus = draw.list(4, () => ({
    ...(valid(draw, Gpu) as Gpu),
    name: hostileText(draw),
    telemetry: valid(draw, GpuTelemetry) as GpuTelemetry,
  }));
  const snapshot: Snapshot = {
    ...base.snapshot,
    node: { ...base.snapshot.node, id: hostileText(draw), name: hostileText(draw), version: hostileText(draw) },
    gpus,
    holds: draw.list(3, () => valid(draw, Hold) as Hold),
    problems: draw.list(3, () => valid(draw, Problem) as Problem),
    reliability: valid(draw, Reliability) as Reliability,
    workloads: draw.list(5, () => workload(draw)),
    host: { info: { ...base.snapshot.host.info, hostname: hostileText(draw) } },
  };
  const processes = new Map(
    gpus.map(({ uuid }) => [
      uuid,
      draw.list(5, () => ({
        pid: draw.below(5),
        name: hostileText(draw),
        type: "C" as const,
        vramUsedMiB: hostileNumber(draw),
      })),
    ]),
  );
  const tally = new Tally();
  tally.appended(draw.list(10, (seq) => event(draw, seq)));
  return {
    ...base,
    snapshot,
    gpus: detailsOf({ raw: new Map(gpus.map(({ uuid }) => [uuid, raw(draw)])), processes }),
    xids: gpus.map(({ uuid }) => ({ gpu: uuid, xid: draw.below(200), count: 1, lastAtMs: hostileNumber(draw) })),
    tally: tally.figures,
    sampledAtMs: hostileNumber(draw),
  };
}

function event(draw: Draw, seq: number): DurableEvent {
  const body = valid(draw, draw.of(EventBody.options)) as EventBody;
  return { seq: seq + 1, at: "2026-01-02T03:04:05.000Z", ...body };
}

const byName = new Map(FAMILIES.map((family) => [family.name, family]));

export const metricsGroup = plainGroup(
  target<Figures>({
    name: "/metrics of a node, whatever is true of it",
    inputs: 6_000,
    make: figures,
    check(of) {
      const text = metricsText(of);
      for (const [name, { type, help, series }] of parseExposition(text)) {
        const family = byName.get(name);
        ensure(family !== undefined && type === family.type && help !== undefined, `${name} is not as it is declared`);
        for (const { labels } of series.values())
          for (const [label, value] of Object.entries(labels)) {
            ensure(label === "le" || family.labels.includes(label), `${name} has a label ${label}`);
            ensure(
              value.length <= 512 && value.isWellFormed(),
              `${name} has a value that is no text: ${value.slice(0, 80)}`,
            );
          }
      }
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
      ensure(!/[\x00-\x09\x0b-\x1f\x7f-\x9f]/.test(text), "a control character is left");
    },
  }),
  target<EventBody[][]>({
    name: "events, counted",
    inputs: 20_000,
    make: (draw) => draw.list(5, () => draw.list(4, () => event(draw, 0))),
    check(commits) {
      const tally = new Tally();
      let before = 0;
      for (const commit of commits as DurableEvent[][]) {
        tally.appended(commit);
        const { events, preemptions, finished, notices, pulls } = tally.figures;
        const sum = (counts: Iterable<number>) => [...counts].reduce((total, count) => total + count, 0);
        ensure(sum(events.values()) === before + commit.length, "an event is not counted once");
        before += commit.length;
        ensure(sum(preemptions.values()) <= before * 1000, "more was taken than there was");
        ensure(finished.length <= 128, "endless kinds of ends");
        for (const { count, sum: total, buckets } of [notices, pulls]) {
          ensure(total >= 0 && Number.isFinite(total), `a sum of ${total}`);
          ensure(
            buckets.every((bucket, at) => bucket.count <= (buckets[at + 1]?.count ?? count)),
            "a bucket holds more than the next",
          );
        }
      }
    },
  }),
  target<ReadonlyMap<string, string>>({
    name: "nvidia-smi, a GPU's properties",
    inputs: 20_000,
    make: raw,
    check(values) {
      for (const { name, read } of PROPERTIES) {
        const value = read(values);
        ensure(value === undefined || Number.isFinite(value), () => `${name} is ${value}`);
      }
    },
  }),
);
