import { EventEmitter } from "node:events";
import { Readable } from "node:stream";
import type * as z from "zod";
import { capabilityOfName } from "../../src/gpu/nvidia/compute-capability.ts";
import { WANTED_FIELDS } from "../../src/gpu/nvidia/fields.ts";
import { type Inventory, readInventory } from "../../src/gpu/nvidia/inventory.ts";
import { tensorCoresOf } from "../../src/gpu/nvidia/precision.ts";
import { classify, type Smi, type SmiProcessHandle } from "../../src/gpu/nvidia/runner.ts";
import { readRow } from "../../src/gpu/nvidia/sample-row.ts";
import { samples } from "../../src/gpu/nvidia/sampler.ts";
import { readTopology } from "../../src/gpu/nvidia/topology.ts";
import { readSmiXml } from "../../src/gpu/nvidia/xml.ts";
import { Gpu, GpuProcess, GpuTelemetry } from "../../src/protocol/gpu.ts";
import { recorded, simulated } from "../corpus.ts";
import type { Draw } from "../draw.ts";
import { hostileText, mutatedLines, mutatedText } from "../hostile.ts";
import { ensure, type TargetGroup, target } from "../target.ts";

const WORDS = [
  "[N/A]",
  "N/A",
  "[Not Supported]",
  "GPU is lost",
  "[GPU requires reset]",
  "ERR!",
  "101 %",
  "4.5",
  "-3",
  "1e30",
  "99999999999999999999 MiB",
];
const TAGS = [
  ...WORDS,
  "</gpu>",
  '<gpu id="x">',
  "<mig_device>",
  "</nvidia_smi_log>",
  "<nvidia_smi_log>",
  "<process_info>",
  "<uuid>",
  "<supported_clocks>",
];

/** What an nvidia-smi says to each of its command lines. */
interface Said {
  xml: string;
  listing: string;
  topology: string;
  capabilities: string;
  exitCode: number;
}

/** An nvidia-smi that says what it is told to. */
function smiThatSays(
  answerTo: (args: readonly string[]) => { stdout: string; exitCode: number },
  stream?: () => SmiProcessHandle,
): Smi {
  return {
    path: "nvidia-smi",
    run: async (args) => {
      const { stdout, exitCode } = answerTo(args);
      return classify(stdout, exitCode);
    },
    stream() {
      if (stream === undefined) throw new Error("nothing is streamed here");
      return stream();
    },
    pause: async () => [],
    resume: () => undefined,
  };
}

function answering({ xml, listing, topology, capabilities, exitCode }: Said): Smi {
  return smiThatSays((args) => {
    const stdout = args[0] === "-q" ? xml : args[0] === "-L" ? listing : args[0] === "topo" ? topology : capabilities;
    return { stdout, exitCode };
  });
}

function fits(schema: z.ZodType, value: unknown, what: string): void {
  const result = schema.safeParse(value);
  ensure(result.success, () => `${what} is no ${what} of the wire: ${JSON.stringify(value)}: ${result.error}`);
}

/** All that is made of one read can be told to a coordinator. */
function tellable({ gpus, samples, processes, problems }: Inventory): void {
  for (const gpu of gpus) fits(Gpu, gpu, "GPU");
  for (const sample of samples) fits(GpuTelemetry, sample, "sample");
  for (const list of processes.values()) {
    for (const { pid, vramUsedMiB } of list) {
      fits(GpuProcess, { pid, ...(vramUsedMiB !== undefined && { vramUsedMiB }) }, "process");
    }
  }
  ensure(new Set(gpus.map(({ uuid }) => uuid)).size === gpus.length, "two GPUs have one UUID");
  for (const { message } of problems) ensure(message.length < 2000, "a problem of thousands of characters");
}

interface Stream {
  text: string;
  /** Where the pipe cuts it. */
  cuts: number[];
  rows: number;
  help: string;
}

/** Runs the sampler over one process that prints `text` and ends. */
async function sampled({ text, cuts, rows, help }: Stream): Promise<void> {
  const bytes = Buffer.from(text);
  const chunks = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b)].map((from, position, all) =>
    bytes.subarray(from, all[position + 1] ?? bytes.length),
  );
  const stop = new AbortController();
  const child = () =>
    Object.assign(new EventEmitter(), {
      stdout: Readable.from(chunks.filter((chunk) => chunk.length > 0)),
      pid: undefined,
      exitCode: 0,
      signalCode: null,
      unref: () => undefined,
    }) as unknown as SmiProcessHandle;
  const smi = smiThatSays(() => ({ stdout: help, exitCode: 0 }), child);
  const told = samples(smi, {
    intervalMs: 100,
    signal: stop.signal,
    shapes: { shape: { generation: 0, rows }, onShape: () => ({ [Symbol.dispose]: () => undefined }) },
    // The stream has ended: another is not wanted.
    onProblem: () => stop.abort(),
  });
  for await (const round of told) {
    ensure(round.length <= rows, `${round.length} samples in a round of ${rows} GPUs`);
    for (const sample of round) fits(GpuTelemetry, sample, "sample");
  }
}

export async function nvidiaGroup(): Promise<TargetGroup> {
  const small = await simulated("t4", "-q", "-x");
  const mig = (await simulated("a100x4-mig", "-q", "-x")).replace(
    /<supported_clocks>[\s\S]*?<\/supported_clocks>/g,
    "",
  );
  const documents = [
    small,
    mig.slice(0, 30_000),
    ...recorded("xml", ".xml"),
    ...recorded("wild", ".xml"),
    await simulated("broken-driver", "-q", "-x"),
    ...recorded("failure/no-driver", ".stdout"),
  ];
  const listings = [await simulated("a100x4-mig", "-L"), await simulated("h100x8", "-L"), ""];
  const topologies = [
    await simulated("h100x8", "topo", "-m"),
    ...recorded("text/topo", ""),
    ...recorded("text/topo", ".txt"),
  ];
  const helps = [await simulated("t4", "--help-query-gpu"), ...recorded("text/help", "")];
  const query = `--query-gpu=${WANTED_FIELDS.join(",")}`;
  const rows = [
    await simulated("h100x8", query, "--format=csv,noheader,nounits"),
    await simulated("rtx4090x2", query, "--format=csv,noheader,nounits"),
  ];
  const capabilities = await simulated("h100x8", "--query-gpu=uuid,compute_cap", "--format=csv,noheader");
  const names = documents.flatMap((text) => [...text.matchAll(/<product_name>([^<]*)/g)].map(([, name]) => name ?? ""));

  const document = (draw: Draw) =>
    draw.any(
      () => mutatedLines(draw, draw.of(documents), /[<>]/, WORDS),
      () => mutatedText(draw, draw.of(documents), TAGS),
      () => mutatedText(draw, draw.of(documents), TAGS),
    );
  const rowText = (draw: Draw) => mutatedLines(draw, draw.of(rows), /, /, [...WORDS, "0x1", "GPU-", "7"]);
  const targets = [
    target<string>({
      name: "nvidia-smi -q -x, read",
      inputs: 40_000,
      make: document,
      check(text) {
        const { gpus } = readSmiXml(text);
        ensure(new Set(gpus.map(({ index }) => index)).size === gpus.length, "two GPUs have one index");
      },
    }),
    target<Said>({
      name: "nvidia-smi, all answers of a full read",
      inputs: 30_000,
      make: (draw) => ({
        xml: document(draw),
        listing: draw.once(2) ? mutatedLines(draw, draw.of(listings), /[ :()]/, WORDS) : draw.of(listings),
        topology: draw.once(2)
          ? mutatedLines(draw, draw.of(topologies), /\t/, ["NV12", "SYS", "GPU1"])
          : draw.of(topologies),
        capabilities: draw.once(2) ? mutatedLines(draw, capabilities, /, /, ["9.0", "9", "x.y"]) : capabilities,
        exitCode: draw.of([0, 0, 0, 1, 2, 9, 255]),
      }),
      check: async (said) => tellable(await readInventory(answering(said))),
    }),
    target<string>({
      name: "nvidia-smi, a line of the sample stream",
      inputs: 110_000,
      make: (draw) =>
        draw.any(
          () => draw.of(rowText(draw).split("\n")),
          () => mutatedText(draw, draw.of(rows).slice(0, 200), WORDS),
        ),
      check(line) {
        const row = readRow(line, WANTED_FIELDS);
        if (row?.kind === "sample") fits(GpuTelemetry, row.sample, "sample");
      },
    }),
    target<Stream>({
      name: "nvidia-smi, a sample stream cut anywhere",
      inputs: 15_000,
      make: (draw) => ({
        text: draw
          .list(3, () =>
            draw.any(
              () => rowText(draw),
              () => draw.of(rows),
            ),
          )
          .join(""),
        cuts: draw.list(5, () => draw.below(5000)),
        rows: 1 + draw.below(8),
        help: draw.once(4) ? mutatedLines(draw, draw.of(helps), /"/, ["index", "uuid"]) : (helps[0] ?? ""),
      }),
      check: sampled,
    }),
    target<string>({
      name: "nvidia-smi topo -m",
      inputs: 30_000,
      make: (draw) =>
        mutatedLines(draw, draw.of(topologies), /\t/, [
          "NV12",
          "NV99999999999999999999",
          "X",
          "SYS",
          "GPU0",
          "GPU7",
          "NIC0",
        ]),
      check(text) {
        for (const [index, links] of readTopology(text)) {
          ensure(Number.isSafeInteger(index), "an index that is none");
          for (const link of links) {
            ensure(Number.isSafeInteger(link.index) && link.index !== index, "a link to nowhere");
            ensure(link.count === undefined || Number.isSafeInteger(link.count), "a count that is none");
          }
        }
      },
    }),
    target<string>({
      name: "product names",
      inputs: 30_000,
      make: (draw) =>
        draw.any(
          () => mutatedText(draw, draw.of(names), ["GTX ", "TITAN ", "-2Q", "RTX 4090"]),
          () => hostileText(draw),
        ),
      check(name) {
        const capability = capabilityOfName(name);
        ensure(capability === undefined || /^\d+\.\d+$/.test(capability), "no compute capability");
        const cores = tensorCoresOf(capability, name);
        ensure(cores === undefined || cores.precisions.length > 0, "tensor cores that multiply nothing");
      },
    }),
    target<{ text: string; exitCode: number }>({
      name: "nvidia-smi, what a failure means",
      inputs: 30_000,
      make: (draw) => ({ text: mutatedText(draw, draw.of(documents).slice(0, 400), WORDS), exitCode: draw.below(256) }),
      check({ text, exitCode }) {
        const result = classify(text, exitCode);
        if (!result.ok) ensure(result.problem.message.length < 1000, "a problem of thousands of characters");
      },
    }),
  ];
  return { targets, [Symbol.asyncDispose]: async () => undefined };
}
