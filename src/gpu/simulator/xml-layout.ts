/**
 * The `<gpu>` element of `nvidia-smi -q -x`, one line for each element, for every driver from 470 to 599.
 *
 * Indentation is depth. After the name comes the text: literal, or with `$name` for a value (see `values.ts`; a word such as
 * `N/A` drops the unit behind it; `$(name)` where the unit follows at once). After `|` stand conditions that must all hold: `580+`, `-569` and `535-569` are driver
 * generations (inclusive), other words are traits of the GPU or driver (see `traitsOf`), `!` negates. `@name` is a part that
 * repeats and is written in code. Source: documents printed by drivers 460, 515, 525, 535, 536, 550, 570, 580 and 595; what
 * 470 and 590 print is taken from their text output.
 */
export const gpuLayout = `
product_name $name
product_brand $x.brand
product_architecture $x.architecture | 510+
display_mode $display_mode
display_attached $display_attached | 580+
display_active $display_active
persistence_mode $persistence_mode
addressing_mode $addressing_mode | 535+
mig_mode
  current_mig $mig.mode.current
  pending_mig $mig.mode.pending
@mig_devices
accounting_mode $accounting.mode
accounting_mode_buffer_size $accounting.buffer_size
driver_model
  current_dm N/A
  pending_dm N/A
serial $serial
uuid $uuid
pdi $x.pdi | 580+
minor_number $index
vbios_version $vbios_version
multigpu_board No
board_id $x.board_id
board_part_number $x.board_part | 525+
gpu_part_number $x.gpu_part
gpu_fru_part_number N/A | 535+
gpu_module_id $x.module_id | -569
platformInfo | 570+
  chassis_serial_number N/A
  slot_number N/A
  tray_index N/A
  host_id N/A
  peer_type N/A
  module_id $platform.module_id
  gpu_fabric_guid N/A
inforom_version
  img_version $inforom.img
  oem_object $inforom.oem
  ecc_object $inforom.ecc
  pwr_object N/A
inforom_bbx_flush | 545+
  latest_timestamp N/A
  latest_duration N/A
gpu_operation_mode
  current_gom N/A
  pending_gom N/A
c2c_mode $c2c.mode | 545+
gsp_firmware_version $x.gsp | -544
gpu_virtualization_mode
  virtualization_mode None
  host_vgpu_mode N/A
  vgpu_heterogeneous_mode N/A | 545+
gpu_reset_status | 535-579
  reset_required $reset_status.reset_required
  drain_and_reset_recommended $reset_status.drain_and_reset_recommended
gpu_recovery_action $gpu_recovery_action | 570+
gsp_firmware_version $x.gsp | 545+
ibmnpu
  relaxed_ordering_mode N/A
pci
  pci_bus $x.bus
  pci_device $x.device
  pci_domain $x.domain
  pci_base_class 3 | 550+
  pci_sub_class $x.sub_class | 550+
  pci_device_id $x.device_id
  pci_bus_id $pci.bus_id
  pci_sub_system_id $x.sub_system
  pci_gpu_link_info
    pcie_gen
      max_link_gen $pcie.link.gen.max
      current_link_gen $pcie.link.gen.current
      device_current_link_gen $pcie.link.gen.gpucurrent | 525+
      max_device_link_gen $pcie.link.gen.gpumax | 525+
      max_host_link_gen $pcie.link.gen.hostmax | 525+
    link_widths
      max_link_width $(pcie.link.width.max)x
      current_link_width $(pcie.link.width.current)x
  pci_bridge_chip
    bridge_chip_type N/A
    bridge_chip_fw N/A
  replay_counter 0
  replay_rollover_counter 0
  tx_util $x.tx KB/s
  rx_util $x.rx KB/s
  atomic_caps_outbound N/A | 570+
  atomic_caps_inbound N/A | 525+
  atomic_caps_outbound N/A | 525-569
fan_speed $fan.speed %
performance_state $pstate
clocks_throttle_reasons | -534
  clocks_throttle_reason_gpu_idle $clocks_event_reasons.gpu_idle
  clocks_throttle_reason_applications_clocks_setting $clocks_event_reasons.applications_clocks_setting
  clocks_throttle_reason_sw_power_cap $clocks_event_reasons.sw_power_cap
  clocks_throttle_reason_hw_slowdown $clocks_event_reasons.hw_slowdown
  clocks_throttle_reason_hw_thermal_slowdown $clocks_event_reasons.hw_thermal_slowdown
  clocks_throttle_reason_hw_power_brake_slowdown $clocks_event_reasons.hw_power_brake_slowdown
  clocks_throttle_reason_sync_boost $clocks_event_reasons.sync_boost
  clocks_throttle_reason_sw_thermal_slowdown $clocks_event_reasons.sw_thermal_slowdown
  clocks_throttle_reason_display_clocks_setting $clocks_event_reasons.display_clocks_setting
clocks_event_reasons | 535+
  clocks_event_reason_gpu_idle $clocks_event_reasons.gpu_idle
  clocks_event_reason_applications_clocks_setting $clocks_event_reasons.applications_clocks_setting
  clocks_event_reason_sw_power_cap $clocks_event_reasons.sw_power_cap
  clocks_event_reason_hw_slowdown $clocks_event_reasons.hw_slowdown
  clocks_event_reason_hw_thermal_slowdown $clocks_event_reasons.hw_thermal_slowdown
  clocks_event_reason_hw_power_brake_slowdown $clocks_event_reasons.hw_power_brake_slowdown
  clocks_event_reason_sync_boost $clocks_event_reasons.sync_boost
  clocks_event_reason_sw_thermal_slowdown $clocks_event_reasons.sw_thermal_slowdown
  clocks_event_reason_display_clocks_setting $clocks_event_reasons.display_clocks_setting
clocks_event_reasons_counters | 580+
  clocks_event_reasons_counters_sw_power_cap $clocks_event_reasons_counters.sw_power_cap us
  clocks_event_reasons_counters_sync_boost $clocks_event_reasons_counters.sync_boost us
  clocks_event_reasons_counters_sw_therm_slowdown $clocks_event_reasons_counters.sw_thermal_slowdown us
  clocks_event_reasons_counters_hw_therm_slowdown $clocks_event_reasons_counters.hw_thermal_slowdown us
  clocks_event_reasons_counters_hw_power_brake $clocks_event_reasons_counters.hw_power_brake_slowdown us
sparse_operation_mode $x.sparse | 545+
fb_memory_usage
  total $memory.total MiB
  reserved $memory.reserved MiB | 510+
  used $memory.used MiB
  free $memory.free MiB
bar1_memory_usage
  total $x.bar1_total MiB
  used $x.bar1_used MiB
  free $x.bar1_free MiB
cc_protected_memory_usage | 535+
  total $protected_memory.total MiB
  used $protected_memory.used MiB
  free $protected_memory.free MiB
compute_mode $compute_mode
utilization
  gpu_util $utilization.gpu %
  memory_util $utilization.memory %
  encoder_util $utilization.encoder %
  decoder_util $utilization.decoder %
  jpeg_util $utilization.jpeg % | 535+
  ofa_util $utilization.ofa % | 535+
encoder_stats
  session_count $encoder.stats.sessionCount
  average_fps $encoder.stats.averageFps
  average_latency $encoder.stats.averageLatency
fbc_stats
  session_count 0
  average_fps 0
  average_latency 0
dram_encryption_mode | 570+
  current_dram_encryption N/A
  pending_dram_encryption N/A
ecc_mode
  current_ecc $ecc.mode.current
  pending_ecc $ecc.mode.pending
@ecc_errors
retired_pages
  multiple_single_bit_retirement
    retired_count $retired_pages.single_bit_ecc.count
    retired_pagelist | retires
    retired_pagelist N/A | !retires
  double_bit_retirement
    retired_count $retired_pages.double_bit.count
    retired_pagelist | retires
    retired_pagelist N/A | !retires
  pending_blacklist $retired_pages.pending
  pending_retirement $retired_pages.pending
remapped_rows $x.remapped_rows | !remaps
remapped_rows | remaps
  remapped_row_corr $remapped_rows.correctable
  remapped_row_corr_inactive $remapped_rows.correctable_inactive | late580
  remapped_row_unc $remapped_rows.uncorrectable
  remapped_row_unc_inactive $remapped_rows.uncorrectable_inactive | late580
  remapped_row_pending $remapped_rows.pending
  remapped_row_failure $remapped_rows.failure
  row_remapper_histogram
    row_remapper_histogram_max $remapped_rows.histogram.max bank(s)
    row_remapper_histogram_high $remapped_rows.histogram.high bank(s)
    row_remapper_histogram_partial $remapped_rows.histogram.partial bank(s)
    row_remapper_histogram_low $remapped_rows.histogram.low bank(s)
    row_remapper_histogram_none $remapped_rows.histogram.none bank(s)
temperature
  gpu_temp $temperature.gpu C
  gpu_temp_tlimit $temperature.gpu.tlimit C | 525+
  gpu_temp_max_tlimit_threshold $x.shutdown C | margin
  gpu_temp_slow_tlimit_threshold $x.slowdown C | margin
  gpu_temp_max_gpu_tlimit_threshold $x.operating C | margin
  gpu_temp_max_threshold $x.shutdown C | !margin
  gpu_temp_slow_threshold $x.slowdown C | !margin
  gpu_temp_max_gpu_threshold $x.operating C | !margin
  gpu_target_temperature $x.target C
  memory_temp $temperature.memory C
  gpu_temp_max_mem_tlimit_threshold $x.memory_limit C | margin
  gpu_temp_max_mem_threshold $x.memory_limit C | !margin
supported_gpu_target_temp
  gpu_target_temp_min $x.target_min C
  gpu_target_temp_max $x.target_max C
gpu_power_readings | 535+
  power_state $x.power_state
  power_draw $power.draw W | -569
  average_power_draw $power.draw.average W | 570+
  instant_power_draw $power.draw.instant W | 570+
  current_power_limit $enforced.power.limit W
  requested_power_limit $power.limit W
  default_power_limit $power.default_limit W
  min_power_limit $power.min_limit W
  max_power_limit $power.max_limit W
power_readings | -534
  power_state $pstate
  power_management Supported
  power_draw $power.draw W
  power_limit $power.limit W
  default_power_limit $power.default_limit W
  enforced_power_limit $enforced.power.limit W
  min_power_limit $power.min_limit W
  max_power_limit $power.max_limit W
gpu_memory_power_readings | 545+
  power_draw $x.memory_power W | -569
  average_power_draw $x.memory_power W | 570+
  instant_power_draw N/A | 570+
module_power_readings | 535+
  power_state $x.power_state
  power_draw N/A | -569
  average_power_draw N/A | 570+
  instant_power_draw N/A | 570+
  current_power_limit N/A
  requested_power_limit N/A
  default_power_limit N/A
  min_power_limit N/A
  max_power_limit N/A
power_smoothing N/A | 570+
power_profiles | 570+
  power_profile_requested_profiles N/A
  power_profile_enforced_profiles N/A
edpp_multiplier $edpp_multiplier% | 590+
clocks
  graphics_clock $clocks.current.graphics MHz
  sm_clock $clocks.current.sm MHz
  mem_clock $clocks.current.memory MHz
  video_clock $clocks.current.video MHz
applications_clocks
  graphics_clock $clocks.applications.graphics MHz
  mem_clock $clocks.applications.memory MHz
default_applications_clocks
  graphics_clock $clocks.default_applications.graphics MHz
  mem_clock $clocks.default_applications.memory MHz
deferred_clocks | 525+
  mem_clock N/A
max_clocks
  graphics_clock $clocks.max.graphics MHz
  sm_clock $clocks.max.sm MHz
  mem_clock $clocks.max.memory MHz
  video_clock $x.max_video MHz
max_customer_boost_clocks
  graphics_clock $x.boost MHz
clock_policy
  auto_boost N/A
  auto_boost_default N/A
voltage | -579
  graphics_volt N/A
fabric | 525+
  state $fabric.state
  status $fabric.status
  cliqueId $fabric.cliqueId | 545+
  clusterUuid $fabric.clusterUuid | 545+
  health | 545+
    summary N/A | 580+
    bandwidth N/A
    route_recovery_in_progress N/A | 570+
    route_unhealthy N/A | 570+
    access_timeout_recovery N/A | 570+
    incorrect_configuration N/A | 580+
    partition_assigned N/A | late580
@supported_clocks
@processes
accounted_processes
capabilities | 570+
  egm disabled
`;

/** `<ecc_errors>`: three families of boards count differently. */
export const eccLayout = `
ecc_errors
  volatile
    @single_double volatile | single-double
    sram_correctable $ecc.errors.corrected.volatile.sram | !single-double
    sram_uncorrectable $ecc.errors.uncorrected.volatile.sram | !single-double !split
    sram_uncorrectable_parity $ecc.errors.uncorrected.volatile.sram.parity | split
    sram_uncorrectable_secded $ecc.errors.uncorrected.volatile.sram.secded | split
    dram_correctable $ecc.errors.corrected.volatile.dram | !single-double
    dram_uncorrectable $ecc.errors.uncorrected.volatile.dram | !single-double
  aggregate
    @single_double aggregate | single-double
    sram_correctable $ecc.errors.corrected.aggregate.sram | !single-double
    sram_uncorrectable $ecc.errors.uncorrected.aggregate.sram | !single-double !split
    sram_uncorrectable_parity $ecc.errors.uncorrected.aggregate.sram.parity | split
    sram_uncorrectable_secded $ecc.errors.uncorrected.aggregate.sram.secded | split
    dram_correctable $ecc.errors.corrected.aggregate.dram | !single-double
    dram_uncorrectable $ecc.errors.uncorrected.aggregate.dram | !single-double
    sram_threshold_exceeded $ecc.errors.uncorrected.aggregate.sram.thresholdExceeded | split
  aggregate_uncorrectable_sram_sources | split
    sram_l2 $ecc.errors.uncorrected.aggregate.sram.l2
    sram_sm $ecc.errors.uncorrected.aggregate.sram.sm
    sram_microcontroller $ecc.errors.uncorrected.aggregate.sram.mcu
    sram_pcie $ecc.errors.uncorrected.aggregate.sram.pcie
    sram_other $ecc.errors.uncorrected.aggregate.sram.other
  channel_repair_pending $x.channel_repair | split 580+
  tpc_repair_pending $x.channel_repair | split 580+
  unrepairable_memory $x.unrepairable | split late580
  unrepairable_memory $x.unrepairable | split 590-594
`;
