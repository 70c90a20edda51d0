import type { Driver } from "./driver.ts";
import type { GpuState, RunningProcess } from "./state.ts";
import { isWord, type Values, valuesOf, words } from "./values.ts";
import { calendarTime } from "./xml.ts";

/** Column widths of the summary, which grew twice: with 535 and with 550. */
interface Layout {
  readonly gpu: number;
  readonly memory: number;
  readonly name: number;
  readonly persistenceGap: number;
  readonly watts: number;
  readonly cap: number;
  readonly versions: readonly [smi: number, driver: number];
  readonly pid: number;
  /** Since 580: a full line under the versions, an empty line before the processes, a blank where a unit would be. */
  readonly modern: boolean;
}

function layoutOf({ major }: Driver): Layout {
  const common = { gpu: 41, name: 30, persistenceGap: 1, versions: [22, 14], pid: 10, modern: false } as const;
  if (major >= 580) return { ...common, memory: 24, watts: 16, cap: 5, pid: 16, modern: true };
  if (major >= 550) return { ...common, memory: 24, watts: 16, cap: 5 };
  if (major >= 535) return { ...common, memory: 22, watts: 17, cap: 4, versions: [22, 12] };
  return { ...common, gpu: 31, memory: 22, name: 18, persistenceGap: 2, watts: 7, cap: 4, versions: [12, 12] };
}

const status = 22;

/** `nvidia-smi` without arguments. */
export function summaryTable(
  states: readonly GpuState[],
  { driver, now, attached }: { readonly driver: Driver; readonly now: Date; readonly attached: number },
): { readonly text: string; readonly exitCode: number } {
  const layout = layoutOf(driver);
  const width = layout.gpu + layout.memory + status + 2;
  const columns = [layout.gpu, layout.memory, status];
  const known = states.filter((state) => state.missing !== "handle");
  const lost = known.some((state) => state.missing === "counters");
  const lines = [
    `${calendarTime(now)}       `,
    rule([width]),
    `| NVIDIA-SMI ${driver.version.padEnd(layout.versions[0])} Driver Version: ${driver.version.padEnd(layout.versions[1])} CUDA Version: ${driver.cuda.padEnd(8)} |`,
    layout.modern ? rule(columns) : `|${rule(columns).slice(1)}`,
    ...heading(layout),
    `|${columns.map((column) => "=".repeat(column)).join("+")}|`,
  ];
  for (const state of known) {
    lines.push(...gpuRows(state, valuesOf(state, driver, { gpuCount: attached }), layout), rule(columns));
  }
  // The blank line was not widened with the table in 550.
  const gap = layout.modern ? "" : " ".repeat(Math.min(width + 2, 89));
  if (known.some((state) => (state.gpu.mig?.length ?? 0) > 0)) lines.push(gap, ...migTable(known, layout, width));
  lines.push(gap, ...processTable(known, layout, { width, lost }));
  const failed = lost || known.length < states.length;
  return { text: `${lines.join("\n")}\n`, exitCode: failed ? 15 : 0 };
}

function rule(columns: readonly number[]): string {
  return `+${columns.map((column) => "-".repeat(column)).join("+")}+`;
}

function heading({ gpu, memory }: Layout): string[] {
  const narrow = gpu === 31;
  const wide = memory === 24;
  const first = narrow ? " GPU  Name        Persistence-M" : " GPU  Name                 Persistence-M ";
  const second = narrow ? " Fan  Temp  Perf  Pwr:Usage/Cap" : " Fan  Temp   Perf          Pwr:Usage/Cap ";
  return [
    `|${first}| Bus-Id        ${wide ? "  " : ""}Disp.A | Volatile Uncorr. ECC |`,
    `|${second}|${"Memory-Usage ".padStart(memory)}| GPU-Util  Compute M. |`,
    `|${" ".repeat(gpu)}|${" ".repeat(memory)}|               MIG M. |`,
  ];
}

function gpuRows({ gpu, missing }: GpuState, values: Values, layout: Layout): string[] {
  const value = (key: string) => values[key] ?? words.absent;
  const shown = (key: string, unit: string) => {
    const found = value(key);
    if (found === words.lost) return "ERR!";
    return isWord(found) ? words.absent : `${found}${unit}`;
  };
  const watts = (key: string) => {
    const found = shown(key, "");
    // A number carries its W; since 580 anything else carries a blank in that place.
    return /\d/.test(found) ? `${Math.round(Number(found))}W` : `${found}${layout.modern ? " " : ""}`;
  };
  const name =
    gpu.profile.name.length > layout.name ? `${gpu.profile.name.slice(0, layout.name - 3)}...` : gpu.profile.name;
  const mib = (key: string) => `${value(key)}MiB`;
  const memory =
    value("memory.total") === words.absent
      ? " Not Supported"
      : missing === "counters"
        ? ` ${words.lost}`
        : `${mib("memory.used").padStart(layout.memory === 24 ? 11 : 10)} / ${mib("memory.total").padStart(layout.memory === 24 ? 9 : 8)}`;
  const ecc = value("ecc.mode.current");
  const errors =
    gpu.mig !== undefined
      ? "On"
      : ecc === "Enabled"
        ? shown("ecc.errors.uncorrected.volatile.total", "")
        : ecc === "Disabled"
          ? "Off"
          : ecc;
  const persistence = value("persistence_mode") === "Enabled" ? "On" : "Off";
  const identity = `${String(gpu.index).padStart(4)}  ${name.padEnd(layout.name)}${" ".repeat(layout.persistenceGap)}${layout.gpu === 31 ? "" : ""}${persistence.padEnd(3)}`;
  const readings =
    ` ${shown("fan.speed", "%").padStart(3)}${shown("temperature.gpu", "C").padStart(6)}${value("pstate").padStart(6)}` +
    `${watts("power.draw").padStart(layout.watts)} / ${watts("enforced.power.limit").padStart(layout.cap)} `;
  return [
    `|${identity.padEnd(layout.gpu)}|${`${gpu.busId} Off `.padStart(layout.memory)}|${`${errors} `.padStart(status)}|`,
    `|${readings}|${memory.padEnd(layout.memory)}|${shown("utilization.gpu", "%").padStart(8)}${value("compute_mode").padStart(13)} |`,
    `|${" ".repeat(layout.gpu)}|${" ".repeat(layout.memory)}|${`${value("mig.mode.current")} `.padStart(status)}|`,
  ];
}

function migTable(states: readonly GpuState[], layout: Layout, width: number): string[] {
  const usage = width - 18 - 11 - 23 - 3;
  const tail = layout.gpu === 31 ? 1 : 4;
  const label = layout.modern ? "Shared " : "";
  const columns = [18, usage, 11, 23];
  const both = (used: number, total: number) =>
    `${`${used}MiB`.padStart(usage - 11 - tail)} / ${`${total}MiB`.padStart(8)}${" ".repeat(tail)}`;
  const lines = [
    rule([width]),
    `| MIG devices:${" ".repeat(width - 13)}|`,
    rule(columns),
    `| GPU  GI  CI  MIG |${`${label}Memory-Usage `.padStart(usage)}|        Vol|        Shared         |`,
    `|      ID  ID  Dev |${`${label}BAR1-Usage `.padStart(usage)}| SM     Unc| CE ENC  DEC  OFA  JPG |`,
    `|                  |${" ".repeat(usage)}|        ECC|                       |`,
    `|${columns.map((column) => "=".repeat(column)).join("+")}|`,
  ];
  for (const { gpu, migUsedMiB } of states) {
    for (const [at, device] of (gpu.mig ?? []).entries()) {
      const { profile } = device;
      const cell = (count: number) => String(count).padStart(5);
      const engines = `${String(profile.copyEngines).padStart(3)}${"0".padStart(4)}${cell(profile.decoders)}${cell(profile.ofas)}${cell(profile.jpegs)} `;
      const ids = `${String(gpu.index).padStart(3)}${String(device.gpuInstanceId).padStart(5)}   0${String(device.index).padStart(4)}  `;
      const bar1 = Math.floor((gpu.profile.bar1MiB * profile.memorySlices) / 8);
      lines.push(
        `|${ids}|${both(migUsedMiB[at] ?? 0, profile.vramMiB)}| ${String(profile.multiprocessors).padEnd(3)}     0 |${engines}|`,
        `|                  |${both(0, bar1)}|           |                       |`,
        rule(columns),
      );
    }
  }
  return lines;
}

function processTable(
  states: readonly GpuState[],
  layout: Layout,
  { width, lost }: { readonly width: number; readonly lost: boolean },
): string[] {
  const line = (content: string) => `|${content.padEnd(width)}|`;
  const headings = `  GPU   GI   CI${"PID".padStart(layout.pid + 1)}   Type   Process name`;
  const lines = [
    rule([width]),
    line(" Processes:"),
    `|${headings.padEnd(width - 11)}GPU Memory |`,
    `|${"        ID   ID".padEnd(width - 11)}Usage      |`,
    `|${"=".repeat(width)}|`,
  ];
  // With a GPU lost the listing ends here, in the middle of the table.
  if (lost) return [...lines, "Failed to query device index"];
  const rows = states.flatMap(({ gpu, processes }) =>
    processes.map((process) => processRow(gpu.index, process, layout, width)),
  );
  return [...lines, ...(rows.length > 0 ? rows : [line("  No running processes found")]), rule([width])];
}

function processRow(index: number, process: RunningProcess, layout: Layout, width: number): string {
  const instance = (id: number | undefined) => (id === undefined ? words.absent : String(id).padStart(2).padEnd(3));
  const head =
    `${String(index).padStart(5)}   ${instance(process.mig?.gpuInstanceId)}  ${instance(process.mig && 0)}` +
    `${String(process.pid).padStart(layout.pid)}${process.type.padStart(7)}   `;
  const rest = width - head.length - 1;
  const longest = rest - 11;
  const name = process.name.length > longest ? `...${process.name.slice(3 - longest)}` : process.name;
  return `|${head}${name}${`${process.usedMiB}MiB`.padStart(rest - name.length)} |`;
}
