import type { Driver } from "./driver.ts";
import { handleFailureLine } from "./faults.ts";
import type { GpuState, RunningProcess } from "./state.ts";
import { isWord, type Values, valuesOf, words } from "./values.ts";
import { eccLayout, gpuLayout } from "./xml-layout.ts";

interface Line {
  readonly depth: number;
  readonly tag: string;
  readonly text: string;
  readonly conditions: readonly string[];
  readonly parent: boolean;
}

/** `nvidia-smi -q -x`: the whole document. `selected` are the GPUs asked for, `attached` how many there are. */
export function xmlDocument(
  selected: readonly GpuState[],
  { driver, now, attached }: { readonly driver: Driver; readonly now: Date; readonly attached: number },
): string {
  const body = selected.map((state) =>
    state.missing === "handle"
      ? errorString(handleFailureLine(driver, state.gpu))
      : gpuElement(state, driver, valuesOf(state, driver, { gpuCount: attached })),
  );
  return envelope(body.join(""), { driver, now, attached });
}

/** The document a running stream prints once every GPU fell off the bus, before it ends. */
export function lostDocument(context: {
  readonly driver: Driver;
  readonly now: Date;
  readonly attached: number;
}): string {
  const line = errorString(`Unable to determine the PCI bus id for the target device: ${words.lost}`);
  return envelope(line.repeat(context.attached), context);
}

function errorString(text: string): string {
  return `\t<error_string>${text}</error_string>\n\n`;
}

function envelope(
  body: string,
  { driver, now, attached }: { readonly driver: Driver; readonly now: Date; readonly attached: number },
): string {
  return (
    `<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_${driver.dtd}.dtd">\n<nvidia_smi_log>\n` +
    `\t<timestamp>${calendarTime(now)}</timestamp>\n\t<driver_version>${driver.version}</driver_version>\n` +
    `\t<cuda_version>${driver.cuda}</cuda_version>\n\t<attached_gpus>${attached}</attached_gpus>\n` +
    `${body}</nvidia_smi_log>\n`
  );
}

/** `Fri Nov 20 19:52:49 2026`, local time, as asctime prints it. */
export function calendarTime(now: Date): string {
  const [weekday, month, day, year] = now.toDateString().split(" ");
  return `${weekday} ${month} ${String(Number(day)).padStart(2)} ${now.toTimeString().slice(0, 8)} ${year}`;
}

function gpuElement(state: GpuState, driver: Driver, values: Values): string {
  const out = [`\t<gpu id="${state.gpu.busId}">\n`];
  const traits = traitsOf(state, driver, values);
  const special: Readonly<Record<string, (indent: string, argument: string) => string>> = {
    mig_devices: (indent) => migDevices(state, indent),
    ecc_errors: () => render(eccLines, { depth: 2, driver, traits, values, special }),
    single_double: singleDouble(values),
    supported_clocks: (indent) => supportedClocks(state, indent),
    processes: (indent) => processes(state.processes, indent),
  };
  out.push(render(gpuLines, { depth: 2, driver, traits, values, special }), "\t</gpu>\n\n");
  return out.join("");
}

function traitsOf({ gpu }: GpuState, driver: Driver, values: Values): ReadonlySet<string> {
  const { eccCounters, celsius, remapBanks } = gpu.profile;
  const split = eccCounters === "parity-secded" && driver.major >= 550;
  const traits = {
    split,
    "single-double": eccCounters === "single-double",
    margin: celsius.limits.kind === "margin" && driver.major >= 525,
    retires: !isWord(values["retired_pages.single_bit_ecc.count"] ?? words.absent),
    remaps: remapBanks !== undefined && gpu.mig === undefined && values["remapped_rows.pending"] !== words.lost,
    late580: driver.late580,
  };
  return new Set(Object.entries(traits).flatMap(([name, on]) => (on ? [name] : [])));
}

interface Rendering {
  readonly depth: number;
  readonly driver: Driver;
  readonly traits: ReadonlySet<string>;
  readonly values: Values;
  readonly special: Readonly<Record<string, (indent: string, argument: string) => string>>;
}

function render(lines: readonly Line[], { depth: base, driver, traits, values, special }: Rendering): string {
  const out: string[] = [];
  const open: string[] = [];
  const closeTo = (depth: number) => {
    while (open.length > depth) {
      const tag = open.pop();
      out.push("\t".repeat(base + open.length), `</${tag}>\n`);
    }
  };
  let skipDeeperThan = Number.POSITIVE_INFINITY;
  for (const { depth, tag, text, conditions, parent } of lines) {
    if (depth > skipDeeperThan) continue;
    skipDeeperThan = Number.POSITIVE_INFINITY;
    closeTo(depth);
    if (!conditions.every((condition) => holds(condition, driver, traits))) {
      skipDeeperThan = depth;
      continue;
    }
    const indent = "\t".repeat(base + depth);
    if (tag.startsWith("@")) out.push(special[tag.slice(1)]?.(indent, text) ?? "");
    else if (parent) {
      open.push(tag);
      out.push(`${indent}<${tag}>\n`);
    } else if (text === "") out.push(`${indent}<${tag}>\n${indent}</${tag}>\n`);
    else out.push(`${indent}<${tag}>${filled(text, values)}</${tag}>\n`);
  }
  closeTo(0);
  return out.join("");
}

function holds(condition: string, driver: Driver, traits: ReadonlySet<string>): boolean {
  const range = /^(\d{3})?([+-])(\d{3})?$/.exec(condition);
  if (range !== null) {
    return driver.major >= Number(range[1] ?? 0) && (range[2] === "+" || driver.major <= Number(range[3] ?? 999));
  }
  return condition.startsWith("!") ? !traits.has(condition.slice(1)) : traits.has(condition);
}

function filled(text: string, values: Values): string {
  const match = /^\$\(?([\w.]+)\)?(.*)$/.exec(text);
  if (match === null) return text;
  const value = values[match[1] ?? ""] ?? words.absent;
  return isWord(value) ? value : escaped(value) + match[2];
}

/** As nvidia-smi does it: markup becomes entities, control characters stay as they are. */
function escaped(text: string): string {
  return text.replace(
    /[<>&"']/g,
    (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;" })[c] ?? c,
  );
}

function migDevices({ gpu, migUsedMiB }: GpuState, indent: string): string {
  if (gpu.mig === undefined || gpu.mig.length === 0)
    return `${indent}<mig_devices>\n${indent}\tNone\n${indent}</mig_devices>\n`;
  const devices = gpu.mig.map((device, at) => {
    const { profile } = device;
    const used = migUsedMiB[at] ?? 0;
    const bar1 = Math.floor((gpu.profile.bar1MiB * profile.memorySlices) / 8);
    return nested("mig_device", [
      ["index", device.index],
      ["gpu_instance_id", device.gpuInstanceId],
      ["compute_instance_id", 0],
      [
        "device_attributes",
        [
          [
            "shared",
            [
              ["multiprocessor_count", profile.multiprocessors],
              ["copy_engine_count", profile.copyEngines],
              ["encoder_count", 0],
              ["decoder_count", profile.decoders],
              ["ofa_count", profile.ofas],
              ["jpg_count", profile.jpegs],
            ],
          ],
        ],
      ],
      ["ecc_error_count", [["volatile_count", [["sram_uncorrectable", 0]]]]],
      [
        "fb_memory_usage",
        [
          ["total", `${profile.vramMiB} MiB`],
          ["reserved", "0 MiB"],
          ["used", `${used} MiB`],
          ["free", `${profile.vramMiB - used} MiB`],
        ],
      ],
      [
        "bar1_memory_usage",
        [
          ["total", `${bar1} MiB`],
          ["used", "0 MiB"],
          ["free", `${bar1} MiB`],
        ],
      ],
    ]);
  });
  return `${indent}<mig_devices>\n${devices.join("")}${indent}</mig_devices>\n`;
}

type Nested = readonly (readonly [tag: string, content: string | number | Nested])[];

/** Elements inside each other, starting three tabs in. */
function nested(tag: string, content: string | number | Nested, indent = "\t\t\t"): string {
  if (typeof content !== "object") return `${indent}<${tag}>${content}</${tag}>\n`;
  const inner = content.map(([child, value]) => nested(child, value, `${indent}\t`)).join("");
  return `${indent}<${tag}>\n${inner}${indent}</${tag}>\n`;
}

/** Volta and older: single and double bit errors by the part of the chip. */
function singleDouble(values: Values): (indent: string, span: string) => string {
  return (indent, span) =>
    (["corrected", "uncorrected"] as const)
      .map((kind) => {
        const value = (place: string) => values[`ecc.errors.${kind}.${span}.${place}`] ?? words.absent;
        const places = ["device_memory", "register_file", "l1_cache", "l2_cache", "texture_memory"] as const;
        const rows: Nested = [
          ...places.map((place) => [place, value(place)] as const),
          ["texture_shm", words.absent],
          ["cbu", value("cbu")],
          ["total", value("total")],
        ];
        return nested(kind === "corrected" ? "single_bit" : "double_bit", rows, indent);
      })
      .join("");
}

function supportedClocks({ gpu }: GpuState, indent: string): string {
  const { memory, max, min, step } = gpu.profile.clocks;
  if (memory.length === 0) return `${indent}<supported_clocks>N/A</supported_clocks>\n`;
  const graphics: string[] = [];
  for (let clock = max; clock >= min; clock -= step) {
    graphics.push(`${indent}\t\t<supported_graphics_clock>${Math.floor(clock)} MHz</supported_graphics_clock>\n`);
  }
  const all = graphics.join("");
  const blocks = memory.map(
    (clock) =>
      `${indent}\t<supported_mem_clock>\n${indent}\t\t<value>${clock} MHz</value>\n${all}${indent}\t</supported_mem_clock>\n`,
  );
  return `${indent}<supported_clocks>\n${blocks.join("")}${indent}</supported_clocks>\n`;
}

function processes(running: readonly RunningProcess[], indent: string): string {
  const infos = running.map((process) =>
    nested(
      "process_info",
      [
        ["gpu_instance_id", process.mig?.gpuInstanceId ?? words.absent],
        ["compute_instance_id", process.mig === undefined ? words.absent : 0],
        ["pid", process.pid],
        ["type", process.type],
        ["process_name", escaped(process.name)],
        ["used_memory", `${process.usedMiB} MiB`],
      ],
      `${indent}\t`,
    ),
  );
  return `${indent}<processes>\n${infos.join("")}${indent}</processes>\n`;
}

function linesOf(layout: string): Line[] {
  const rows = layout.split("\n").filter((row) => row !== "");
  const depthOf = (row: string | undefined) => (row === undefined ? -1 : (row.length - row.trimStart().length) / 2);
  return rows.map((row, at) => {
    const [content = "", conditions = ""] = row.trim().split(" | ");
    const space = content.indexOf(" ");
    return {
      depth: depthOf(row),
      tag: space < 0 ? content : content.slice(0, space),
      text: space < 0 ? "" : content.slice(space + 1),
      conditions: conditions.split(" ").filter((condition) => condition !== ""),
      parent: depthOf(rows[at + 1]) > depthOf(row),
    };
  });
}

const gpuLines = linesOf(gpuLayout);
const eccLines = linesOf(eccLayout);
