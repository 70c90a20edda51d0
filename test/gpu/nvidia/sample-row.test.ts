import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { type Field, knownFields, WANTED_FIELDS } from "../../../src/gpu/nvidia/fields.ts";
import type { Smi } from "../../../src/gpu/nvidia/runner.ts";
import { readRow } from "../../../src/gpu/nvidia/sample-row.ts";
import { readTopology } from "../../../src/gpu/nvidia/topology.ts";
import { GpuTelemetry } from "../../../src/protocol/gpu.ts";
import { fixture, fixtureFiles, haveFixtures } from "../../support/fixtures.ts";

/** The text below a heading of a recorded session, up to the next heading. */
function section(session: string, heading: string): string {
  const parts = session.replaceAll("\r\n", "\n").split(/^#{20,}$/m);
  const at = parts.findIndex((part) => part.includes(`# ${heading}`));
  return at < 0 ? "" : (parts[at + 1] ?? "").trim();
}

/** An nvidia-smi that answers everything with `stdout`. */
const answering = (stdout: string): Smi => ({
  path: "nvidia-smi",
  run: async () => ({ ok: true, stdout }),
  stream: () => {
    throw new Error("not asked for");
  },
  pause: async () => [],
  resume: () => undefined,
});
const { signal } = new AbortController();
const fieldsBy = async (help: string) => (await knownFields(answering(help), { signal })).map(({ field }) => field);

const sessions = fixtureFiles("captures", ".txt").map((path) => `captures/${basename(path)}`);
const helps = fixtureFiles("text/help", ".txt")
  .map((path) => basename(path))
  .filter((name) => name.startsWith("help-query-gpu-"));

describe.runIf(haveFixtures)("recorded sessions", () => {
  it.each(sessions.flatMap((file) => ["idle", "load"].map((when) => [file, when] as const)))(
    "%s, %s: the wanted cells make a sample",
    async (file, when) => {
      const session = fixture(file);
      const csv = section(session, `${when} :: query-gpu (csv`).split("\n");
      const header = (csv[0] ?? "").split(", ").map((name) => name.replace(/ \[.*\]$/, ""));
      const cells = (csv[1] ?? "").split(", ");
      expect(cells).toHaveLength(header.length);
      const asked = await fieldsBy(section(session, "capabilities :: help-query-gpu"));
      expect(asked).toEqual([...WANTED_FIELDS]);
      // The column is headed with the field's newest name.
      const heads = (field: string) => [
        field,
        field.replace("throttle", "event"),
        field.replace("clocks.", "clocks.current.").replace("clocks.current.mem", "clocks.current.memory"),
      ];
      const cellOf = (field: string) => cells[header.findIndex((name) => heads(field).includes(name))] ?? "missing";
      const withoutUnit = (cell: string) => cell.replace(/^([\d.]+) (MiB|%|W|MHz)$/, "$1");
      const line = asked.map((field) => withoutUnit(cellOf(field))).join(", ");
      expect(line).not.toContain("missing");
      const row = readRow(line, asked);
      if (row?.kind !== "sample") throw new Error(`no sample: ${line}`);
      const { sample } = row;
      expect(GpuTelemetry.parse(sample)).toEqual(sample);
      expect(row.index).toBe(0);
      const number = (field: string) => {
        const cell = withoutUnit(cellOf(field));
        return /^[\d.]+$/.test(cell) ? Number(cell) : undefined;
      };
      expect(sample).toMatchObject({
        uuid: cellOf("uuid"),
        vramUsedMiB: number("memory.used"),
        vramTotalMiB: number("memory.total"),
        temperatureCelsius: number("temperature.gpu"),
      });
      expect(sample.utilizationPercent).toBe(number("utilization.gpu"));
      expect(sample.powerWatts).toBe(number("power.draw"));
      expect(sample.smClockMHz).toBe(number("clocks.sm"));
      expect(sample.memoryClockMHz).toBe(number("clocks.mem"));
      expect(sample.fanPercent).toBe(number("fan.speed"));
      expect(sample.memoryTemperatureCelsius).toBe(number("temperature.memory"));
      expect(sample.eccUncorrected).toBe(number("ecc.errors.uncorrected.volatile.total"));
      const names = ["gpu_idle", "sw_power_cap", "hw_thermal_slowdown", "sw_thermal_slowdown"];
      for (const name of names) {
        const active = cells[header.findIndex((column) => column.endsWith(`event_reasons.${name}`))];
        if (active === "Active" || active === "Not Active")
          expect([name, sample.throttleReasons?.includes(name)]).toEqual([name, active === "Active"]);
      }
    },
  );

  it.each(sessions)("%s: a topology of one GPU has no links", (file) => {
    const text = section(fixture(file), "capabilities :: topo -m");
    if (/^GPU0\t/m.test(text)) expect([...readTopology(text)]).toEqual([[0, []]]);
    else expect([...readTopology(text)]).toEqual([]);
  });

  it.each(helps)("%s: what the driver knows is asked for", async (name) => {
    const text = fixture(`text/help/${name}`);
    const quoted = (field: string) =>
      text.split("\n").some((line) => line.startsWith('"') && line.includes(`"${field}"`));
    const asked = await fieldsBy(text);
    expect(asked).toEqual(WANTED_FIELDS.filter(quoted));
    expect(asked).toEqual(expect.arrayContaining(["index", "uuid", "utilization.gpu", "memory.used", "memory.total"]));
  });

  it("topology of eight GPUs, all by eighteen NVLinks", () => {
    const links = readTopology(fixture("real-binary-mock-nvml/topo-m.stdout"));
    expect(links.size).toBe(8);
    for (const [index, reached] of links) {
      const others = [0, 1, 2, 3, 4, 5, 6, 7].filter((other) => other !== index);
      expect(reached).toEqual(others.map((other) => ({ index: other, kind: "nvlink", count: 18 })));
    }
  });

  it("of a stream whose GPU is lost midway the others' rows stay samples", () => {
    const fields: Field[] = ["uuid", "index", "temperature.gpu", "utilization.gpu"];
    const lines = fixture("real-binary-mock-nvml/stream-lms500-gpu2-lost-midway.stdout")
      .split("\n")
      .filter((line) => line !== "")
      // It was recorded with a time where the sampler asks for the UUID.
      .map((line) => line.replace(/^[^,]+, (\d)?/, (_, index) => `GPU-${index ?? "x"}, ${index ?? ""}`));
    const rows = lines.map((line) => readRow(line, fields));
    expect(rows.every((row) => row !== undefined)).toBe(true);
    const lost = lines.map((line) => line.includes("GPU is lost"));
    expect(rows.map((row) => row?.kind === "lost")).toEqual(lost);
    expect(lost.filter(Boolean).length).toBeGreaterThan(0);
    expect(lines.length % 8).toBe(0);
    for (let at = 0; at < lost.length; at += 8)
      expect(lost.slice(at, at + 8).map((is, index) => is && index !== 2)).toEqual(Array(8).fill(false));
  });
});

describe("readRow", () => {
  const fields: Field[] = ["index", "uuid", "utilization.gpu", "power.draw", "clocks_throttle_reasons.active"];

  it("leaves out what has no value and clamps percents", () => {
    expect(readRow("3, GPU-1, 101, [N/A], 0x0000000000000044\r", fields)).toEqual({
      kind: "sample",
      index: 3,
      sample: { uuid: "GPU-1", utilizationPercent: 100, throttleReasons: ["sw_power_cap", "hw_thermal_slowdown"] },
    });
    expect(readRow("0, GPU-1, [Not Supported], [Unknown Error], [N/A]", fields)).toEqual({
      kind: "sample",
      index: 0,
      sample: { uuid: "GPU-1" },
    });
    expect(readRow("0, GPU-1, -5, NaN, 0x", fields)).toMatchObject({ sample: { uuid: "GPU-1" } });
  });

  it.each([
    ["memory.used", "1e30"],
    ["memory.used", "9007199254740993000"],
    ["clocks.sm", "0x10"],
    ["power.draw", "1.2.3"],
    ["ecc.errors.uncorrected.volatile.total", "99999999999999999999"],
  ] as const)("a %s of %s is no measurement", (field, cell) => {
    const row = readRow(`GPU-1, ${cell}`, ["uuid", field]);
    expect(row).toEqual({ kind: "sample", index: undefined, sample: { uuid: "GPU-1" } });
  });

  it("a UUID longer than the wire has room for makes no sample", () => {
    expect(readRow(`GPU-${"x".repeat(200)}, 7`, ["uuid", "utilization.gpu"])).toBeUndefined();
  });

  it("a GPU that is lost leaves its place", () => {
    expect(readRow("2, GPU-1, [GPU is lost], 1.0, [GPU is lost]", fields)).toEqual({ kind: "lost" });
    expect(readRow(Array(5).fill("[GPU is lost]").join(", "), fields)).toEqual({ kind: "lost" });
  });

  it.each([
    "",
    "0, GPU-1, 5",
    "0, GPU-1, 5, 1.0, 0x0, more",
    "Failed to initialize NVML: Unknown Error",
    "0, , 5, 1.0, 0x0",
    "0, [N/A], 5, 1.0, 0x0",
  ])("%j is no row", (line) => expect(readRow(line, fields)).toBeUndefined());
});

describe("readTopology", () => {
  it("numbers that no machine has are no links of that number", () => {
    const links = readTopology("\tGPU0\tGPU1\tGPU99999999999999999999\nGPU0\t X \tNV99999999999999999999\tNV4\n");
    expect(links.get(0)).toEqual([{ index: 1, kind: "pcie" }]);
  });

  it("passes network cards over and knows both kinds of link", () => {
    const text = [
      "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\x1b[0m",
      "GPU0\t X \tNV12\tPXB\t0-31",
      "GPU1\tNV12\t X \tSYS\t0-31",
      "NIC0\tPXB\tSYS\t X ",
      "",
      "Legend:",
      "  X    = Self",
    ].join("\n");
    expect([...readTopology(text)]).toEqual([
      [0, [{ index: 1, kind: "nvlink", count: 12 }]],
      [1, [{ index: 0, kind: "nvlink", count: 12 }]],
    ]);
    expect([...readTopology(text.replaceAll("NV12", "PHB"))][0]).toEqual([
      0,
      [{ index: 1, kind: "pcie", path: "phb" }],
    ]);
  });

  it.each(["", "garbage", "\tGPU0\tGPU1\n", "GPU0\t X \n", "\tGPU0\tGPU1\nGPU0\n"])("%j does not throw", (text) => {
    for (const [, links] of readTopology(text)) expect(links).toEqual([]);
  });
});
