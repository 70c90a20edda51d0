import type * as z from "zod";
import { AgentFrame } from "../../src/protocol/agent-frames.ts";
import { CoordinatorFrame } from "../../src/protocol/coordinator-frames.ts";
import { ErrorFrame } from "../../src/protocol/error-frame.ts";
import { MAX_FRAME_BYTES } from "../../src/protocol/limits.ts";
import { check, parseFrame } from "../../src/protocol/parse.ts";
import { Workload } from "../../src/protocol/workload.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileText, hostileValue, mutated, mutatedText } from "../hostile.ts";
import { ensure, plainGroup, target } from "../target.ts";

const AGENT = AgentFrame.options;
const COORDINATOR = CoordinatorFrame.options;

/** A frame as text: one that fits, one that nearly does, one cut anywhere, or none at all. */
export function frameText(draw: Draw, schemas: readonly Parameters<typeof valid>[1][]): string {
  const text = () => JSON.stringify(valid(draw, draw.of(schemas)));
  return draw.any(
    text,
    () => JSON.stringify(mutated(draw, valid(draw, draw.of(schemas)))),
    () => JSON.stringify(mutated(draw, valid(draw, draw.of(schemas)))),
    () => mutatedText(draw, text(), ['"type":', '"id":', "[[[[", "1e999", "\\ud800", '"__proto__":{}']),
    () => hostileText(draw),
    () => JSON.stringify(hostileValue(draw)) ?? "",
    () => draw.bytes(64).toString("latin1"),
  );
}

/** What is said of an unusable frame goes back to the peer: it must itself be a frame of the contract. */
function answerable(problem: { code: string; message: string; ref?: string }): void {
  const answer = JSON.stringify({ type: "error", ...problem });
  ensure(ErrorFrame.safeParse(JSON.parse(answer)).success, () => `no error frame: ${answer.slice(0, 500)}`);
  ensure(Buffer.byteLength(answer) < MAX_FRAME_BYTES / 4, () => `the complaint has ${Buffer.byteLength(answer)} bytes`);
}

function reading(text: string): void {
  const frame = parseFrame(text);
  if (!frame.ok) {
    answerable(frame.problem);
    return;
  }
  const { type, id } = frame.value;
  ensure(typeof type === "string", "a frame without a type");
  for (const schema of [AgentFrame, CoordinatorFrame] as readonly z.ZodType[]) {
    const checked = check(schema, frame.value, type.slice(0, 60), id);
    if (!checked.ok) answerable(checked.problem);
    // What a schema lets through goes over the wire again, and means the same there.
    else
      ensure(
        schema.safeParse(JSON.parse(JSON.stringify(checked.value))).success,
        "a frame that was read cannot be read again",
      );
  }
}

export const framesGroup = plainGroup(
  target<string>({
    name: "frames of a coordinator, read",
    inputs: 45_000,
    make: (draw) => frameText(draw, COORDINATOR),
    check: reading,
  }),
  target<string>({
    name: "frames of an agent, read",
    inputs: 45_000,
    make: (draw) => frameText(draw, AGENT),
    check: reading,
  }),
  target<unknown>({
    name: "workloads that fit their schema",
    inputs: 20_000,
    make: (draw) => valid(draw, Workload),
    check(input) {
      const first = Workload.parse(input);
      // Filling defaults in is done once: what was filled in fits, and gains nothing.
      ensure(JSON.stringify(Workload.parse(first)) === JSON.stringify(first), "parsing twice is not parsing once");
    },
  }),
);
