import { basename } from "node:path";
import { describe, expect, test } from "vitest";
import { withMigMemory } from "../../src/gpu/nvidia/xml-sample.ts";
import { FAMILIES, metricsText } from "../../src/metrics/families.ts";
import { fixture, fixtureFiles, haveFixtures } from "../support/fixtures.ts";
import { figuresOfGpus } from "./node-figures.ts";
import { type ParsedFamily, parseExposition } from "./parsed.ts";
import { recorded } from "./recorded.ts";

const captures = fixtureFiles("captures", ".txt").map((path) => basename(path, ".txt"));

/** Families of the exporter that gpunode does not tell, and why. */
const NOT_TOLD: Readonly<Record<string, string>> = {
  nvidia_smi_name: "the digits of the product's name",
  nvidia_smi_serial: "a text; it stands in nvidia_smi_gpu_info",
  nvidia_smi_driver_version: "a text; it stands in nvidia_smi_gpu_info",
  nvidia_smi_kmd_version: "a text; it stands in nvidia_smi_gpu_info",
  nvidia_smi_inforom_oem: "a version as a number",
  nvidia_smi_inforom_ecc: "a version as a number",
  nvidia_smi_pci_domain: "part of the bus id in nvidia_smi_gpu_info",
  nvidia_smi_pci_bus: "part of the bus id in nvidia_smi_gpu_info",
  nvidia_smi_pci_device: "part of the bus id in nvidia_smi_gpu_info",
  nvidia_smi_pci_base_class: "an id as a number",
  nvidia_smi_pci_sub_class: "an id as a number",
  nvidia_smi_pci_device_id: "an id as a number",
  nvidia_smi_pci_sub_device_id: "an id as a number; it stands in nvidia_smi_gpu_info",
  nvidia_smi_platform_gpu_fabric_guid: "an id as a number",
  nvidia_smi_platform_host_id: "an id as a number",
  nvidia_smi_platform_module_id: "an id as a number",
  nvidia_smi_platform_slot_number: "a place as a number",
  nvidia_smi_platform_tray_index: "a place as a number",
  nvidia_smi_fabric_clique_id: "an id as a number",
  nvidia_smi_accounting_mode: "a setting nobody's work depends on",
  nvidia_smi_accounting_buffer_size: "a setting nobody's work depends on",
  nvidia_smi_c2c_mode: "a setting nobody's work depends on",
  nvidia_smi_edpp_multiplier_ratio: "a setting nobody's work depends on",
  nvidia_smi_gsp_mode_current: "not in a full read",
  nvidia_smi_gsp_mode_default: "not in a full read",
  nvidia_smi_clocks_event_reasons_supported: "not in a full read",
  nvidia_smi_protected_memory_total_bytes: "confidential computing, which gpunode does not do",
  nvidia_smi_protected_memory_used_bytes: "confidential computing, which gpunode does not do",
  nvidia_smi_protected_memory_free_bytes: "confidential computing, which gpunode does not do",
  nvidia_smi_ecc_errors_corrected_volatile_device_memory: "another name for dram",
  nvidia_smi_ecc_errors_corrected_aggregate_device_memory: "another name for dram",
  nvidia_smi_ecc_errors_uncorrected_volatile_device_memory: "another name for dram",
  nvidia_smi_ecc_errors_uncorrected_aggregate_device_memory: "another name for dram",
  nvidia_smi_remapped_rows_correctable_inactive: "new in driver 610, of which no document is known",
  nvidia_smi_remapped_rows_uncorrectable_inactive: "new in driver 610, of which no document is known",
};

/** Told of other boards, but not of a split one: a full read leaves them out there. */
const NOT_OF_MIG = /^nvidia_smi_remapped_rows_histogram_/;

/** The series where `ours` is not what `theirs` is, to the last digit a double holds. */
function differences(name: string, ours: ParsedFamily, theirs: ParsedFamily): string[] {
  const keys = new Set([...ours.series.keys(), ...theirs.series.keys()]);
  const values = [...keys].flatMap((key) => {
    const [mine, their] = [ours.series.get(key)?.value, theirs.series.get(key)?.value];
    const isSame = mine !== undefined && their !== undefined && Math.abs(mine - their) <= Math.abs(their) * 1e-12;
    return isSame ? [] : [`${key}: ${mine}, theirs ${their}`];
  });
  return ours.type === theirs.type ? values : [...values, `${name} is a ${ours.type}, theirs a ${theirs.type}`];
}

describe.runIf(haveFixtures)("nvidia_smi_* is what nvidia_gpu_exporter tells of the same machine", () => {
  test.each(captures.flatMap((capture) => (["idle", "load"] as const).map((state) => [capture, state] as const)))(
    "%s, %s",
    (capture, state) => {
      const { inventory, samples } = recorded(fixture(`captures/${capture}.txt`), state);
      const figures = figuresOfGpus(inventory, withMigMemory(samples, inventory.samples));
      const ours = parseExposition(metricsText(figures));
      const theirs = parseExposition(fixture(`metrics-nvidia_gpu_exporter/${capture}__${state}.metrics`));
      const complaints: string[] = [];
      for (const [name, family] of theirs) {
        const mine = ours.get(name);
        if (mine !== undefined) complaints.push(...differences(name, mine, family));
        else if (!(name in NOT_TOLD) && !(capture.includes("-mig__") && NOT_OF_MIG.test(name))) {
          complaints.push(`${name} is not told`);
        }
      }
      expect(complaints).toEqual([]);
      expect(theirs.size).toBeGreaterThan(60);
      // What it tells by other means than this command.
      const more = [...ours.keys()].filter((name) => name.startsWith("nvidia_smi_") && !theirs.has(name));
      for (const name of more) expect(name).toMatch(/_last_collect_|_mig_(info|memory)_?|_pcie_throughput_/);
    },
  );

  test("what is said not to be told is not told, and is in some recording", () => {
    const told = new Set(FAMILIES.map(({ name }) => name));
    const recordings = fixtureFiles("metrics-nvidia_gpu_exporter", ".metrics").map((path) =>
      fixture(`metrics-nvidia_gpu_exporter/${basename(path)}`),
    );
    for (const name of Object.keys(NOT_TOLD)) {
      expect(told).not.toContain(name);
      expect(recordings.some((text) => text.includes(`\n${name}{`))).toBe(true);
    }
  });
});

describe.runIf(haveFixtures)("what that exporter reads through NVML alone", () => {
  const theirs = haveFixtures
    ? parseExposition(fixture("metrics-nvidia_gpu_exporter/demo__seeded.metrics"))
    : new Map();
  /** Not to be had from nvidia-smi. */
  const NVML_ALONE = [
    "nvidia_smi_energy_joules_total",
    "nvidia_smi_mig_memory_reserved_bytes",
    "nvidia_smi_nvml_return_code",
  ];

  test("has the same names, types and labels here", () => {
    const complaints: string[] = [];
    for (const [name, family] of theirs as Map<string, ParsedFamily>) {
      if (name in NOT_TOLD || NVML_ALONE.includes(name)) continue;
      const ours = FAMILIES.find((known) => known.name === name);
      const labels = new Set([...family.series.values()].flatMap((series) => Object.keys(series.labels)));
      // With a flag of its own it tells a process' MIG instance too.
      if (name.startsWith("nvidia_smi_compute_app_"))
        for (const label of ["gpu_instance_id", "compute_instance_id"]) labels.delete(label);
      if (ours === undefined) complaints.push(`${name} is not told`);
      else if (ours.type !== family.type) complaints.push(`${name} is a ${ours.type}, theirs a ${family.type}`);
      else if ([...labels].sort().join() !== [...ours.labels].sort().join())
        complaints.push(`${name} has ${ours.labels.join()}, theirs ${[...labels].join()}`);
    }
    expect(complaints).toEqual([]);
  });
});
