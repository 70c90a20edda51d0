import type { Driver } from "./driver.ts";
import type { GpuState } from "./state.ts";

/** What nvidia-smi prints for what is not there. The comma-separated output puts most of these in brackets. */
export const words = {
  absent: "N/A",
  deprecated: "Requested functionality has been deprecated",
  lost: "GPU is lost",
} as const;

export const isWord = (value: string) => value === words.absent || value === words.deprecated || value === words.lost;

/** Values of one GPU without units, by the name `--query-gpu` has for them; names with `x.` are printed in XML only. */
export type Values = Readonly<Record<string, string>>;

// Read from the board at each query, so gone with it; everything else a running driver still answers from memory.
// Source: what nvidia-smi 580 printed with one of eight GPUs failing.
const lostPrefixes = [
  "memory.",
  "utilization.gpu",
  "utilization.memory",
  "ecc.errors.",
  "x.remapped",
  "remapped_rows.",
  "temperature.gpu",
  "power.draw",
  "clocks.current.",
  "fabric.",
];

/** All values of a GPU at one moment. */
export function valuesOf(state: GpuState, driver: Driver, { gpuCount }: { readonly gpuCount: number }): Values {
  const values: Record<string, string> = {
    count: String(gpuCount),
    ...identity(state, driver),
    ...pcie(state, driver),
    ...modes(state, driver),
    ...memory(state, driver),
    ...errorCounters(state, driver),
    ...remappedRows(state),
    ...thermal(state),
    ...clocks(state, driver),
    ...fabric(state, driver),
  };
  if (state.missing === "counters") {
    for (const key of Object.keys(values)) {
      if (lostPrefixes.some((prefix) => key.startsWith(prefix))) values[key] = words.lost;
    }
  }
  return { ...values, ...state.overrides };
}

function identity({ gpu }: GpuState, driver: Driver): Values {
  const { profile } = gpu;
  return {
    driver_version: driver.version,
    kmd_version: driver.version,
    name: profile.name,
    serial: gpu.serial,
    uuid: gpu.uuid,
    index: String(gpu.index),
    vbios_version: profile.vbios,
    "inforom.img": profile.inforom.image,
    "inforom.oem": profile.inforom.oem,
    "inforom.ecc": profile.inforom.ecc,
    "inforom.checksum_validation": "valid",
    compute_cap: profile.computeCapability,
    "platform.chassis_serial_number": "",
    "platform.slot_number": "0",
    "platform.tray_index": "0",
    "platform.host_id": "1",
    "platform.peer_type": "Direct Connected",
    "platform.module_id": String(gpu.index + 1),
    "platform.gpu_fabric_guid": "0x0000000000000000",
    "x.brand": profile.brand,
    "x.architecture": profile.architecture,
    "x.pdi": `0x${gpu.uuid.slice(4).replaceAll("-", "").slice(0, 16)}`,
    "x.board_id": `0x${Number.parseInt(gpu.busId.slice(9, 11) + gpu.busId.slice(12, 14), 16).toString(16)}`,
    "x.board_part": profile.part.board,
    "x.gpu_part": profile.part.gpu,
    "x.gsp": profile.gsp ? driver.version : words.absent,
  };
}

function pcie({ gpu, pcieGeneration, pcieKBps }: GpuState, driver: Driver): Values {
  const [domain = "", bus = "", device = ""] = gpu.busId.split(/[:.]/);
  const { pci, pcieGeneration: max } = gpu.profile;
  return {
    "pci.bus_id": gpu.busId,
    "pci.domain": `0x${domain.slice(-4)}`,
    "pci.bus": `0x${bus}`,
    "pci.device": `0x${device}`,
    "pci.baseClass": "0x3",
    "pci.subClass": `0x${pci.subClass}`,
    "pci.device_id": `0x${pci.device}`,
    "pci.sub_device_id": `0x${pci.subsystem}`,
    "pcie.link.gen.current": String(pcieGeneration),
    "pcie.link.gen.gpucurrent": String(pcieGeneration),
    "pcie.link.gen.max": String(max),
    "pcie.link.gen.gpumax": String(max),
    "pcie.link.gen.hostmax": driver.major >= 535 ? String(max) : words.absent,
    "pcie.link.width.current": String(gpu.pcieWidth),
    "pcie.link.width.max": "16",
    "x.domain": domain.slice(-4),
    "x.bus": bus,
    "x.device": device,
    "x.sub_class": pci.subClass,
    "x.device_id": pci.device,
    "x.sub_system": pci.subsystem,
    "x.tx": String(pcieKBps[0]),
    "x.rx": String(pcieKBps[1]),
  };
}

function modes({ gpu, state, eventReasons, fanPercent }: GpuState, driver: Driver): Values {
  const { profile } = gpu;
  const datacenter = profile.serial;
  const mig = profile.mig === undefined ? words.absent : gpu.mig === undefined ? "Disabled" : "Enabled";
  const reason = (bit: number) => ((eventReasons & bit) === 0 ? "Not Active" : "Active");
  const reasons: Record<string, string> = {
    supported: "0x00000000000001FF",
    active: `0x${eventReasons.toString(16).padStart(16, "0")}`,
    gpu_idle: reason(0x1),
    applications_clocks_setting: reason(0x2),
    sw_power_cap: reason(0x4),
    hw_slowdown: reason(0x8),
    sync_boost: reason(0x10),
    sw_thermal_slowdown: reason(0x20),
    hw_thermal_slowdown: reason(0x40),
    hw_power_brake_slowdown: reason(0x80),
    display_clocks_setting: reason(0x100),
  };
  return {
    ...Object.fromEntries(Object.entries(reasons).map(([name, value]) => [`clocks_event_reasons.${name}`, value])),
    ...Object.fromEntries(
      ["sw_power_cap", "sync_boost", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"].map(
        (name) => [`clocks_event_reasons_counters.${name}`, "0"],
      ),
    ),
    display_mode: driver.major >= 580 ? words.deprecated : datacenter ? "Enabled" : "Disabled",
    display_attached: datacenter ? "Yes" : "No",
    display_active: "Disabled",
    persistence_mode: "Enabled",
    addressing_mode: driver.major >= 570 ? "HMM" : "None",
    "accounting.mode": "Disabled",
    "accounting.buffer_size": "4000",
    gpu_recovery_action: "None",
    "reset_status.reset_required": driver.major >= 570 ? words.deprecated : "No",
    "reset_status.drain_and_reset_recommended":
      driver.major >= 570 ? words.deprecated : profile.mig === undefined ? words.absent : "No",
    "fan.speed": profile.fan ? String(fanPercent) : words.absent,
    pstate: state,
    compute_mode: "Default",
    "mig.mode.current": mig,
    "mig.mode.pending": mig,
    "gsp.mode.current": profile.gsp ? "Enabled" : "Disabled",
    "gsp.mode.default": profile.gsp ? "Enabled" : "Disabled",
    "c2c.mode": profile.fabric ? "Disabled" : words.absent,
    "power.management": driver.major >= 580 ? words.deprecated : "Enabled",
    "encoder.stats.sessionCount": "0",
    "encoder.stats.averageFps": "0",
    "encoder.stats.averageLatency": "0",
    "x.module_id": String(gpu.index),
    "x.sparse": profile.fabric ? "Disabled" : words.absent,
    "x.power_state": driver.major >= 590 ? words.deprecated : state,
  };
}

function memory(
  { gpu, vramUsedMiB, reservedMiB, utilizationPercent, memoryUtilizationPercent }: GpuState,
  driver: Driver,
): Values {
  const { vramMiB, bar1MiB } = gpu.profile;
  const known = (value: number) => (vramMiB === undefined ? words.absent : String(value));
  // Nobody measures a chip that is cut into instances.
  const share = (value: number) => (gpu.mig === undefined ? String(value) : words.absent);
  const protectedMiB = driver.major >= 535 ? "0" : words.absent;
  return {
    "memory.total": known(vramMiB ?? 0),
    "memory.reserved": known(reservedMiB),
    "memory.used": known(vramUsedMiB),
    "memory.free": known((vramMiB ?? 0) - reservedMiB - vramUsedMiB),
    "utilization.gpu": share(utilizationPercent),
    "utilization.memory": share(memoryUtilizationPercent),
    "utilization.encoder": share(0),
    "utilization.decoder": share(0),
    "utilization.jpeg": share(0),
    "utilization.ofa": share(0),
    "protected_memory.total": protectedMiB,
    "protected_memory.used": protectedMiB,
    "protected_memory.free": protectedMiB,
    "x.bar1_total": known(bar1MiB),
    "x.bar1_used": known(1),
    "x.bar1_free": known(bar1MiB - 1),
  };
}

function errorCounters({ gpu }: GpuState, driver: Driver): Values {
  const { ecc, eccCounters } = gpu.profile;
  const mode = ecc === "on" ? "Enabled" : ecc === "off" ? "Disabled" : words.absent;
  const on = (counted: boolean) => (ecc === "on" && counted ? "0" : words.absent);
  const legacy = eccCounters === "single-double";
  const values: Record<string, string> = { "ecc.mode.current": mode, "ecc.mode.pending": mode };
  for (const kind of ["corrected", "uncorrected"]) {
    for (const span of ["volatile", "aggregate"]) {
      const at = `ecc.errors.${kind}.${span}`;
      for (const place of ["register_file", "l1_cache", "l2_cache"]) values[`${at}.${place}`] = on(legacy);
      values[`${at}.cbu`] = on(legacy && kind === "uncorrected");
      for (const place of ["dram", "sram"]) values[`${at}.${place}`] = on(!legacy);
      for (const place of ["device_memory", "total"]) values[`${at}.${place}`] = on(true);
      for (const part of ["parity", "secded"]) values[`${at}.sram.${part}`] = on(eccCounters === "parity-secded");
    }
  }
  const sources = "ecc.errors.uncorrected.aggregate.sram";
  for (const source of ["l2", "sm", "mcu", "pcie", "other"])
    values[`${sources}.${source}`] = on(eccCounters === "parity-secded");
  values[`${sources}.thresholdExceeded`] = on(eccCounters === "parity-secded") === "0" ? "No" : words.absent;
  const retires = ecc === "on" && eccCounters !== "parity-secded";
  values["retired_pages.single_bit_ecc.count"] = retires ? "0" : words.absent;
  values["retired_pages.double_bit.count"] = retires ? "0" : words.absent;
  values["retired_pages.pending"] = retires ? "No" : words.absent;
  values["x.channel_repair"] = "No";
  values["x.unrepairable"] = gpu.profile.fabric && driver.major >= 580 ? "No" : words.absent;
  return values;
}

function remappedRows({ gpu }: GpuState): Values {
  const banks = gpu.profile.remapBanks;
  const counted = banks !== undefined && gpu.mig === undefined;
  const values: Record<string, string> = { "x.remapped_rows": words.absent };
  for (const name of ["correctable", "correctable_inactive", "uncorrectable", "uncorrectable_inactive"]) {
    values[`remapped_rows.${name}`] = counted ? "0" : words.absent;
  }
  for (const name of ["pending", "failure"]) values[`remapped_rows.${name}`] = counted ? "No" : words.absent;
  values["remapped_rows.histogram.max"] = banks === undefined ? words.absent : String(banks);
  for (const name of ["high", "partial", "low", "none"]) {
    values[`remapped_rows.histogram.${name}`] = banks === undefined ? words.absent : "0";
  }
  return values;
}

function thermal(state: GpuState): Values {
  const { celsius: thermal, watts } = state.gpu.profile;
  const { limits, target } = thermal;
  const margin = limits.kind === "margin";
  const degrees = (value: number | undefined) => (value === undefined ? words.absent : String(value));
  const power = (value: number | undefined) => (value === undefined ? words.absent : value.toFixed(2));
  const limit = watts.limit === undefined ? undefined : state.limitWatts;
  return {
    "temperature.gpu": String(state.celsius),
    "temperature.gpu.tlimit": margin ? String(limits.limit - state.celsius) : words.absent,
    "temperature.memory": thermal.memory ? String(state.memoryCelsius) : words.absent,
    "power.draw": power(state.watts),
    "power.draw.average": power(state.watts),
    "power.draw.instant": power(state.watts * 1.005),
    "power.limit": power(limit),
    "enforced.power.limit": power(limit),
    "power.default_limit": power(watts.limit),
    "power.min_limit": power(watts.min),
    "power.max_limit": power(watts.max),
    edpp_multiplier: watts.memory === undefined ? words.absent : "100.00",
    "x.memory_power": power(watts.memory),
    "x.shutdown": degrees(limits.shutdown),
    "x.slowdown": degrees(margin ? -2 : limits.slowdown),
    "x.operating": degrees(margin ? 0 : limits.operating),
    "x.memory_limit": degrees(margin ? (limits.memory ? 0 : undefined) : limits.memory),
    "x.target": degrees(target?.[0]),
    "x.target_min": degrees(target?.[1]),
    "x.target_max": degrees(target?.[2]),
  };
}

function clocks(state: GpuState, driver: Driver): Values {
  const { clocks: profile } = state.gpu.profile;
  const memoryMHz = (value: number | undefined) => (value === undefined || value === 0 ? words.absent : String(value));
  const applications = (value: number | undefined) =>
    driver.major >= 590 ? words.deprecated : value === undefined ? words.absent : String(value);
  const values: Record<string, string> = {};
  for (const name of ["graphics", "sm"]) {
    values[`clocks.current.${name}`] = String(state.graphicsMHz);
    values[`clocks.max.${name}`] = String(profile.max);
  }
  for (const name of ["applications", "default_applications"]) {
    values[`clocks.${name}.graphics`] = applications(profile.applications);
    values[`clocks.${name}.memory`] = applications(profile.applications === undefined ? undefined : profile.memory[0]);
  }
  return {
    ...values,
    "clocks.current.memory": memoryMHz(state.memoryMHz),
    "clocks.current.video": String(state.videoMHz),
    "clocks.max.memory": memoryMHz(profile.memory[0]),
    "x.max_video": String(profile.video),
    "x.boost": profile.boost === undefined ? words.absent : String(profile.boost),
  };
}

function fabric({ gpu }: GpuState, driver: Driver): Values {
  const completed = gpu.profile.fabric && driver.major >= 525;
  return {
    "fabric.state": completed ? "Completed" : words.absent,
    "fabric.status": completed ? "Success" : words.absent,
    "fabric.cliqueId": completed ? "0" : words.absent,
    "fabric.clusterUuid": completed ? "00000000-0000-0000-0000-000000000000" : words.absent,
  };
}
