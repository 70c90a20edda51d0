import * as z from "zod";
import * as answers from "../../src/engine/answers.ts";
import { jsonLines, parseAnswer } from "../../src/engine/client.ts";
import { explain, translate } from "../../src/engine/errors.ts";
import { readEvent } from "../../src/engine/events.ts";
import { demultiplex, unixTime } from "../../src/engine/logs.ts";
import { PullProgress } from "../../src/engine/pull-progress.ts";
import { usageOf } from "../../src/engine/usage.ts";
import { Progress, ReplyError, WorkloadTelemetry } from "../../src/protocol/agent-frames.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileNumber, hostileText, hostileValue, mutated, mutatedText } from "../hostile.ts";
import { ensure, plainGroup, target } from "../target.ts";

/** Every schema of that file by its name. */
const SCHEMAS: readonly (readonly [string, z.ZodType])[] = Object.entries(answers);

/** Sentences of engines and registries. */
const SENTENCES = [
  "(HTTP code 404) no such container - No such container: abc",
  "manifest for example/x:1 not found: manifest unknown",
  'Get "https://registry.example/v2/": x509: certificate signed by unknown authority',
  "toomanyrequests: You have reached your pull rate limit",
  'could not select device driver "nvidia" with capabilities: [[gpu]]',
  "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4",
  "nvidia-container-cli: device error: GPU-1: unknown device: unknown",
  'failed to create task: exec: "x": stat x: no such file or directory: unknown',
  "write /var/lib/docker/tmp/x: no space left on device",
  "error pulling image: https://cdn.example/layer?X-Amz-Signature=canary-7f3a91&b=c failed",
];

interface Cut {
  bytes: Buffer;
  cuts: number[];
}

async function* pieces({ bytes, cuts }: Cut): AsyncGenerator<Buffer> {
  let from = 0;
  for (const cut of [...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, cut);
    from = cut;
  }
}

function frames(draw: Draw): Buffer {
  return Buffer.concat(
    draw.list(6, () => {
      const data = Buffer.from("x".repeat(draw.below(50)));
      const header = Buffer.alloc(8);
      header.writeUInt8(draw.of([1, 2, 1, 2, 1, 2, 0, 3]), 0);
      header.writeUInt32BE(draw.once(10) ? draw.below(2 ** 32) : data.length, 4);
      return Buffer.concat([header, data]);
    }),
  );
}

/** What comes out, and how it ended. */
async function taken(cut: Cut): Promise<string> {
  const out = { stdout: "", stderr: "" };
  try {
    for await (const { stream, data } of demultiplex(pieces(cut))) out[stream] += data.toString("latin1");
  } catch (error) {
    ensure(error instanceof GpunodeError && error.code === "engine_unavailable", `${error}`);
    return JSON.stringify({ ...out, error: error.message });
  }
  return JSON.stringify(out);
}

async function objectsOf(cut: Cut): Promise<string> {
  const objects: unknown[] = [];
  for await (const object of jsonLines(pieces(cut))) objects.push(object);
  return JSON.stringify(objects);
}

function answerTo(draw: Draw): { name: string; answer: unknown } {
  const [name, schema] = draw.of(SCHEMAS);
  return {
    name,
    answer: draw.any(
      () => valid(draw, schema),
      () => mutated(draw, valid(draw, schema)),
      () => hostileValue(draw),
    ),
  };
}

export const engineGroup = plainGroup(
  target<{ name: string; answer: unknown }>({
    name: "answers of the engine",
    inputs: 40_000,
    make: answerTo,
    check({ name, answer }) {
      const schema: z.ZodType = SCHEMAS.find(([known]) => known === name)?.[1] ?? z.never();
      try {
        parseAnswer(schema, answer, name);
      } catch (error) {
        ensure(error instanceof GpunodeError && error.message.length < 1000, `no refusal: ${error}`);
      }
      const event = readEvent(answer);
      ensure(event === undefined || event.containerId !== "", "an event of no container");
    },
  }),
  target<unknown>({
    name: "what a container uses, as the engine tells it",
    inputs: 30_000,
    make: (draw) => {
      const stats = {
        ...(valid(draw, answers.StatsAnswer) as object),
        read: draw.of(["2026-01-01T00:00:01Z", "2026-01-01T00:00:00.5Z", "0001-01-01T00:00:00Z", "x"]),
      };
      return draw.once(2) ? mutated(draw, stats) : stats;
    },
    check(answer) {
      const stats = answers.StatsAnswer.safeParse(answer);
      if (!stats.success) return;
      const usage = usageOf(stats.data, { cpuSeconds: 1, atMs: Date.parse("2026-01-01T00:00:00Z") }, 2 ** 35);
      if (usage === undefined) return;
      const { cpuSeconds, ...told } = usage;
      ensure(Number.isFinite(cpuSeconds) && cpuSeconds >= 0, `${cpuSeconds} seconds of CPU`);
      const frame = WorkloadTelemetry.safeParse({ id: "w", ...told });
      ensure(frame.success, () => `cannot be told: ${JSON.stringify(told)}: ${frame.error}`);
    },
  }),
  target<unknown[]>({
    name: "progress of a pull",
    inputs: 30_000,
    make: (draw) =>
      draw.list(12, () => {
        const line = {
          id: draw.of(["a", "b", "__proto__"]),
          status: draw.of([
            "Downloading",
            "Downloading",
            "Download complete",
            "Pull complete",
            "Retrying in 3 seconds",
          ]),
          progressDetail: {
            current: draw.any(
              () => draw.below(1000),
              () => hostileNumber(draw),
            ),
            total: draw.any(
              () => draw.below(1000),
              () => hostileNumber(draw),
            ),
          },
        };
        return draw.once(3) ? mutated(draw, line) : line;
      }),
    check(lines) {
      const progress = new PullProgress(() => 0);
      for (const line of lines) {
        const read = answers.PullLine.safeParse(line);
        if (!read.success) continue;
        progress.take(read.data);
        const { currentBytes, totalBytes } = progress;
        ensure(currentBytes <= totalBytes, `${currentBytes} of ${totalBytes} bytes`);
        const frame = Progress.safeParse({
          type: "progress",
          workload: "w",
          phase: "pulling",
          currentBytes,
          totalBytes,
        });
        ensure(frame.success, () => `cannot be told: ${currentBytes} of ${totalBytes}`);
      }
    },
  }),
  target<Cut>({
    name: "output of a container, cut anywhere",
    inputs: 30_000,
    make: (draw) => ({ bytes: frames(draw), cuts: draw.list(8, () => draw.below(400)) }),
    async check(cut) {
      const [whole, cutUp] = [await taken({ bytes: cut.bytes, cuts: [] }), await taken(cut)];
      ensure(whole === cutUp, () => `${cutUp} instead of ${whole}`);
    },
  }),
  target<Cut>({
    name: "JSON lines of the engine, cut anywhere",
    inputs: 20_000,
    make: (draw) => ({
      bytes: Buffer.from(
        draw
          .list(6, () =>
            draw.any(
              // Below the line's limit: beyond it the reader gives up, sooner or later as the pieces come.
              () => JSON.stringify(hostileValue(draw, 1))?.slice(0, 200_000),
              () => hostileText(draw).slice(0, 3000),
            ),
          )
          .join("\n"),
      ),
      cuts: draw.list(6, () => draw.below(400)),
    }),
    async check(cut) {
      const [whole, cutUp] = [await objectsOf({ bytes: cut.bytes, cuts: [] }), await objectsOf(cut)];
      ensure(whole === cutUp, "cutting changes what is read");
    },
  }),
  target<{ words: string; status: number | undefined }>({
    name: "errors of the engine and of registries",
    inputs: 30_000,
    make: (draw) => ({
      words: mutatedText(draw, draw.of(SENTENCES), ["exec: ", "stat ", ": ", "no such file", '"']),
      status: draw.of([undefined, 404, 409, 500, 503]),
    }),
    check({ words, status }) {
      const thrown = Object.assign(
        new Error(words),
        status !== undefined && { statusCode: status, json: { message: words } },
      );
      for (const error of [
        explain(words, "pull the image"),
        translate(thrown, "pull the image", { socketPath: "/s" }),
      ]) {
        if (!(error instanceof GpunodeError)) continue;
        const { code, message, details } = error;
        ensure(
          ReplyError.safeParse({ code, message, ...(details !== undefined && { details }) }).success,
          "no error of the wire",
        );
        ensure(message.length < 2500, `a message of ${message.length} characters`);
        ensure(!/https?:\/\/[^\s"?]+\?[^…]/.test(message), `it shows the query of an address: ${message}`);
      }
    },
  }),
  target<string>({
    name: "instants as the engine wants them",
    inputs: 10_000,
    make: (draw) =>
      new Date(draw.below(2 ** 32) * 997)
        .toISOString()
        .replace(/\.\d+/, `.${String(draw.below(10 ** 9)).padStart(1 + draw.below(9), "0")}`),
    check(instant) {
      const [seconds, fraction] = unixTime(instant).split(".");
      ensure(
        Number(seconds) === Math.floor(Date.parse(instant) / 1000) && /^\d{9}$/.test(fraction ?? ""),
        unixTime(instant),
      );
    },
  }),
);
