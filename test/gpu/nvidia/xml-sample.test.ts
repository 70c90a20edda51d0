import { describe, expect, it } from "vitest";
import { inventoryOf, readInventory } from "../../../src/gpu/nvidia/inventory.ts";
import { samples } from "../../../src/gpu/nvidia/sampler.ts";
import { readSmiXml } from "../../../src/gpu/nvidia/xml.ts";
import { withMigMemory } from "../../../src/gpu/nvidia/xml-sample.ts";
import { Gpu, GpuTelemetry } from "../../../src/protocol/gpu.ts";
import { fixture, haveFixtures } from "../../support/fixtures.ts";
import { documents, first, gpuTexts, numberOf, within } from "./documents.ts";
import { simulatedSmi } from "./simulated.ts";

const nothingBeside = { capabilities: new Map<string, string>(), topology: "", listing: "" };
const read = (text: string, listing = "") => inventoryOf(readSmiXml(text), { ...nothingBeside, listing });
const numbers = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, found]) => Number(found));

describe.runIf(haveFixtures)("recorded documents", () => {
  it.each(documents)("%s: its samples and caps are what its text tells", (file) => {
    const text = fixture(file);
    const { gpus, samples: full, raw } = read(text);
    for (const [at, part] of gpuTexts(text).entries()) {
      const uuid = first(part, "uuid");
      if (!uuid?.startsWith("GPU-")) continue;
      const sample = full.find((one) => one.uuid === uuid);
      if (/>\s*\[?GPU is lost\]?\s*</.test(part)) {
        expect(sample).toBeUndefined();
        continue;
      }
      if (sample === undefined) throw new Error(`no sample of GPU ${at}`);
      expect(GpuTelemetry.parse(sample)).toEqual(sample);
      const own = part.replace(/<mig_devices>[\s\S]*?<\/mig_devices>/, "");
      const memory = within(own, "fb_memory_usage");
      const power = within(own, "gpu_power_readings") || within(own, "power_readings");
      const clocks = within(own, "clocks");
      const utilization = within(own, "utilization");
      expect({
        utilizationPercent: sample.utilizationPercent,
        memoryUtilizationPercent: sample.memoryUtilizationPercent,
        vramUsedMiB: sample.vramUsedMiB,
        vramTotalMiB: sample.vramTotalMiB,
        vramReservedMiB: sample.vramReservedMiB,
        powerWatts: sample.powerWatts,
        temperatureCelsius: sample.temperatureCelsius,
        memoryTemperatureCelsius: sample.memoryTemperatureCelsius,
        fanPercent: sample.fanPercent,
        smClockMHz: sample.smClockMHz,
        memoryClockMHz: sample.memoryClockMHz,
      }).toEqual({
        utilizationPercent: numberOf(first(utilization, "gpu_util")),
        memoryUtilizationPercent: numberOf(first(utilization, "memory_util")),
        vramUsedMiB: numberOf(first(memory, "used")),
        vramTotalMiB: numberOf(first(memory, "total")),
        vramReservedMiB: numberOf(first(memory, "reserved")),
        powerWatts:
          numberOf(first(power, "power_draw")) ??
          numberOf(first(power, "average_power_draw")) ??
          numberOf(first(power, "instant_power_draw")),
        temperatureCelsius: numberOf(first(own, "gpu_temp")),
        memoryTemperatureCelsius: numberOf(first(own, "memory_temp")),
        fanPercent: numberOf(first(own, "fan_speed")),
        smClockMHz: numberOf(first(clocks, "sm_clock")),
        memoryClockMHz: numberOf(first(clocks, "mem_clock")),
      });
      const active = [...own.matchAll(/<clocks_(?:event|throttle)_reason_(\w+)>Active</g)].map(([, name]) => name);
      const isTold = /<clocks_(event|throttle)_reason_\w+>(Not )?Active</.test(own);
      expect(sample.throttleReasons?.toSorted()).toEqual(isTold ? active.toSorted() : undefined);
      const volatile = within(own, "volatile");
      const old = numberOf(first(within(volatile, "double_bit"), "total"));
      const parts = numbers(volatile, /<[sd]ram_uncorrectable\w*>(\d+)</g);
      expect(sample.eccUncorrected).toBe(
        old ?? (parts.length === 0 ? undefined : parts.reduce((sum, count) => sum + count, 0)),
      );

      const gpu = gpus.find((one) => one.uuid === uuid);
      expect(Gpu.parse(gpu)).toEqual(gpu);
      const max = within(own, "max_clocks");
      expect([gpu?.powerLimitDefaultWatts, gpu?.smClockLimitMHz, gpu?.smClockMaxMHz]).toEqual([
        numberOf(first(power, "default_power_limit")),
        numberOf(first(within(own, "applications_clocks"), "graphics_clock")),
        numberOf(first(max, "sm_clock")),
      ]);
      expect(raw?.get(uuid ?? "")?.get("product_name")).toBe(first(own, "product_name"));
    }
  });

  it.each(documents)("%s: types of its processes", (file) => {
    const text = fixture(file);
    const { gpus, processes } = read(text);
    for (const [at, gpu] of gpus.entries()) {
      const listed = (gpuTexts(text)[at] ?? "").split("<process_info>").slice(1);
      expect(processes.get(gpu.uuid)?.map(({ type }) => type)).toEqual(
        listed.map((part) => first(part, "type")?.replace("M+", "")),
      );
    }
  });

  it("four MIG instances of a recorded A100 have their own memory and processes", () => {
    const text = fixture("xml/a100-sxm4-v12-535.54.03-telegraf.xml");
    const uuid = first(text, "uuid") ?? "";
    const listing = `GPU 0: NVIDIA A100-SXM4-80GB (UUID: ${uuid})\n${[0, 1, 2, 3].map((n) => `  MIG 1g.20gb     Device  ${n}: (UUID: MIG-${n})\n`).join("")}`;
    const busy = text.replace(
      "<processes />",
      "<processes><process_info><gpu_instance_id>4</gpu_instance_id><compute_instance_id>0</compute_instance_id><pid>7</pid><type>M+C</type><process_name>x</process_name><used_memory>3 MiB</used_memory></process_info></processes>",
    );
    const { samples: full, processes } = read(busy, listing);
    const devices = text.split("<mig_device>").slice(1);
    expect(full[0]?.mig).toEqual(
      devices.map((part, n) => ({
        uuid: `MIG-${n}`,
        vramUsedMiB: numberOf(first(within(part, "fb_memory_usage"), "used")),
        vramTotalMiB: numberOf(first(within(part, "fb_memory_usage"), "total")),
      })),
    );
    expect(processes.get(uuid)).toEqual([{ pid: 7, name: "x", vramUsedMiB: 3, type: "C", migUuid: "MIG-1" }]);
  });
});

describe("samples of a full read", () => {
  it.each(["470", "535", "580"])("driver %s: have the figures of the stream's rows", async (driver) => {
    using simulated = simulatedSmi({
      driver,
      gpus: [{ model: "a100-sxm4-40gb", count: 2, load: 60 }],
    });
    const { samples: full } = await readInventory(simulated.smi);
    expect(full).toHaveLength(2);
    const { signal } = new AbortController();
    for await (const round of samples(simulated.smi, { intervalMs: 100, signal })) {
      // Of the video engines only the document tells in drivers that old.
      const beside = driver === "470" ? ["decoderPercent", "encoderPercent"] : [];
      expect(round.map((sample) => [...Object.keys(sample), ...beside].toSorted())).toEqual(
        full.map((sample) => Object.keys(sample).toSorted()),
      );
      for (const [at, sample] of round.entries()) {
        for (const key of ["uuid", "vramTotalMiB", "vramReservedMiB", "throttleReasons", "eccUncorrected"] as const)
          expect([key, full[at]?.[key]]).toEqual([key, sample[key]]);
        expect(Math.abs((full[at]?.powerWatts ?? 0) - (sample.powerWatts ?? 1e9))).toBeLessThan(60);
      }
      break;
    }
    await simulated.gone();
  });

  it("MIG instances' memory is added to the stream's samples", async () => {
    using simulated = simulatedSmi("a100x4-mig");
    const { samples: full, gpus } = await readInventory(simulated.smi);
    expect(full.map(({ mig }) => mig?.map(({ uuid }) => uuid))).toEqual(
      gpus.map(({ mig }) => (mig?.enabled === true ? mig.instances.map(({ uuid }) => uuid) : undefined)),
    );
    for (const { mig } of full) for (const { vramTotalMiB } of mig ?? []) expect(vramTotalMiB).toBeGreaterThan(4000);
    const bare = full.map(({ uuid }) => ({ uuid, utilizationPercent: 1 }));
    expect(withMigMemory(bare, full)).toEqual(
      full.map(({ uuid, mig }) => ({ uuid, utilizationPercent: 1, ...(mig && { mig }) })),
    );
    expect(withMigMemory([{ uuid: "GPU-new" }], full)).toEqual([{ uuid: "GPU-new" }]);
  });
});
