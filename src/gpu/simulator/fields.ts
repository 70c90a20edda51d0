import type { Driver } from "./driver.ts";

/** A property of `--query-gpu`. */
export interface Field {
  /** The name the header prints, whichever alias was asked for. */
  readonly name: string;
  readonly alias?: string;
  readonly unit?: string;
  /** Where the value stands in `Values`. */
  readonly key: string;
  /** Whether `N/A` is printed without brackets. */
  readonly bare: boolean;
}

/**
 * The properties in the order `--help-query-gpu` lists them: `name|alias [unit] | since`. Braces stand for each of their words in
 * turn, the first brace turning slowest. `580+`, `-534`, `535-579` are driver generations; `late580` is 580.159 and later
 * 580s, and 595; an alias behind `^` came with 580. Source: the lists that drivers 470 to 595 print. A property without a value here is printed as `[N/A]`.
 */
const table = `
timestamp
driver_version
kmd_version | 595+
vgpu_driver_capability.heterogenous_multivGPU | 525+
count
{name|gpu_name,serial|gpu_serial,uuid|gpu_uuid,pci.bus_id|gpu_bus_id}
pci.{domain,bus,device}
pci.{baseClass,subClass} | 550+
pci.{device_id,sub_device_id}
vgpu_device_capability.{fractional_multiVgpu,heterogeneous_timeSlice_profile,heterogeneous_timeSlice_sizes} | 525+
vgpu_device_capability.{homogeneous_placements,mig_timeSlicing,mig_timeSlicing_mode} | 580+
pcie.link.gen.current
pcie.link.gen.gpucurrent | 525+
pcie.link.gen.max
pcie.link.gen.{gpumax,hostmax} | 525+
pcie.link.width.{current,max}
index
display_mode
display_attached | 580+
{display_active,persistence_mode}
addressing_mode | 535+
accounting.{mode,buffer_size}
driver_model.{current,pending}
vbios_version
{inforom.img|inforom.image,inforom.oem,inforom.ecc,inforom.pwr|inforom.power}
{inforom.checksum_validation,gpu_recovery_action} | 580+
reset_status.{reset_required,drain_and_reset_recommended} | 535-579
{gom.current|gpu_operation_mode.current,gom.pending|gpu_operation_mode.pending}
fan.speed [%]
pstate
@reasons {supported,active,gpu_idle,applications_clocks_setting,sw_power_cap,hw_slowdown,hw_thermal_slowdown}
@reasons {hw_power_brake_slowdown,sw_thermal_slowdown,sync_boost}
clocks_event_reasons_counters.{sw_power_cap,sync_boost,sw_thermal_slowdown,hw_thermal_slowdown} [us] | 580+
clocks_event_reasons_counters.hw_power_brake_slowdown [us] | 580+
memory.total [MiB]
memory.reserved [MiB] | 510+
memory.{used,free} [MiB]
compute_mode
compute_cap | 510+
utilization.{gpu,memory} [%]
utilization.{encoder,decoder,jpeg,ofa} [%] | 535+
encoder.stats.{sessionCount,averageFps,averageLatency}
dramEncryption.mode.{current,pending} | 580+
ecc.mode.{current,pending}
ecc.errors.{corrected,uncorrected}.{volatile,aggregate}.@places
ecc.errors.uncorrected.{volatile,aggregate}.sram.{parity,secded} | 580+
ecc.errors.uncorrected.aggregate.sram.{thresholdExceeded,l2,sm,mcu,pcie,other} | 580+
{retired_pages.single_bit_ecc.count|retired_pages.sbe,retired_pages.double_bit.count|retired_pages.dbe}
retired_pages.pending
remapped_rows.correctable|remapped_rows.sbe | 580+
remapped_rows.correctable_inactive | late580
remapped_rows.uncorrectable|remapped_rows.dbe | 580+
remapped_rows.uncorrectable_inactive | late580
remapped_rows.{pending,failure} | 580+
remapped_rows.histogram.{max,high,partial,low,none} | 580+
temperature.gpu
temperature.gpu.tlimit | 525+
temperature.memory
power.management
power.draw [W]
{power.draw.average|^gpu.power.draw.average,power.draw.instant|^gpu.power.draw.instant} [W] | 525+
{power.limit|^gpu.power.requested_limit,enforced.power.limit|^gpu.power.current_limit} [W]
{power.default_limit|^gpu.power.default_limit,power.min_limit|^gpu.power.min_limit} [W]
power.max_limit|^gpu.power.max_limit [W]
module.power.draw.{average,instant} [W] | 580+
module.power.limit|module.power.requested_limit [W] | 580+
module.enforced.power.limit|module.power.current_limit [W] | 580+
module.power.{default_limit,min_limit,max_limit} [W] | 580+
power_smoothing.delayed_power_smoothing_supported | 580-594
power_smoothing.{primary_power_floor,secondary_power_floor} [W] | 580-594
power_smoothing.{min_primary_floor_activation_offset,min_primary_floor_activation_point} [W] | 580-594
power_smoothing.window_multiplier [ms] | 580-594
power_smoothing.curr_profile.secondary_power_floor [W] | 580-594
power_smoothing.curr_profile.{primary_floor_act_window_multiplier,primary_floor_tar_window_multiplier} | 580-594
power_smoothing.curr_profile.primary_floor_act_offset [W] | 580-594
power_smoothing.admin_override.secondary_power_floor [W] | 580-594
power_smoothing.admin_override.{primary_floor_act_window_multiplier,primary_floor_tar_window_multiplier} | 580-594
power_smoothing.admin_override.primary_floor_act_offset [W] | 580-594
edpp_multiplier [%] | 590+
{clocks.current.graphics|clocks.gr,clocks.current.sm|clocks.sm} [MHz]
{clocks.current.memory|clocks.mem,clocks.current.video|clocks.video} [MHz]
{clocks.applications.graphics|clocks.applications.gr,clocks.applications.memory|clocks.applications.mem} [MHz]
clocks.default_applications.graphics|clocks.default_applications.gr [MHz]
clocks.default_applications.memory|clocks.default_applications.mem [MHz]
{clocks.max.graphics|clocks.max.gr,clocks.max.sm|clocks.max.sm,clocks.max.memory|clocks.max.mem} [MHz]
mig.mode.{current,pending}
gsp.mode.{current,default} | 535+
c2c.mode | 545+
protected_memory.{total,used,free} [MiB] | 535+
fabric.{state,status} | 525+
fabric.{cliqueId,clusterUuid} | 580+
fabric.health.{summary,bandwidth,route_recovery_in_progress,route_unhealthy,access_timeout_recovery} | 580+
fabric.health.incorrect_configuration | 580+
fabric.health.partition_assigned | late580
platform.{chassis_serial_number,slot_number,tray_index,host_id,peer_type,module_id,gpu_fabric_guid} | 580+
hostname | 580+
`;

const places = "{device_memory,dram,register_file,l1_cache,l2_cache,texture_memory,cbu,sram,total}";

/** The properties this driver's `--query-gpu` knows, in the order it lists them. */
export function fieldsOf(driver: Driver): Field[] {
  return table
    .split("\n")
    .filter((row) => row !== "")
    .flatMap((row) => rowFields(row, driver));
}

function rowFields(row: string, driver: Driver): Field[] {
  const [definition = "", condition] = row.split(" | ");
  if (condition !== undefined && !since(condition, driver)) return [];
  const unit = / \[(.+)\]$/.exec(definition)?.[1];
  const names = definition.replace(/ \[.+\]$/, "").replace("@places", places);
  return expanded(names).map((name) => {
    if (name.startsWith("@reasons ")) return reason(name.slice("@reasons ".length), driver);
    const [canonical = "", given] = name.split("|");
    const alias = given?.startsWith("^") ? (driver.major >= 580 ? given.slice(1) : undefined) : given;
    return {
      name: canonical,
      key: canonical,
      bare: canonical === "temperature.memory" || canonical.startsWith("fabric."),
      ...(alias !== undefined && { alias }),
      ...(unit !== undefined && { unit }),
    };
  });
}

/** Renamed in 535, which still takes the old name. */
function reason(name: string, driver: Driver): Field {
  const [current, old] = [`clocks_event_reasons.${name}`, `clocks_throttle_reasons.${name}`];
  if (driver.major < 535) return { name: old, key: current, bare: false };
  return { name: current, alias: old, key: current, bare: false };
}

function since(condition: string, driver: Driver): boolean {
  if (condition === "late580") return driver.late580;
  const [, from, , to] = /^(\d{3})?([+-])(\d{3})?$/.exec(condition) ?? [];
  return driver.major >= Number(from ?? 0) && driver.major <= Number(to ?? 999);
}

function expanded(text: string): string[] {
  const open = text.indexOf("{");
  if (open < 0) return [text];
  const close = text.indexOf("}", open);
  const [before, after] = [text.slice(0, open), text.slice(close + 1)];
  return text
    .slice(open + 1, close)
    .split(",")
    .flatMap((word) => expanded(before + word + after));
}
