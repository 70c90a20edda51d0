import { expect, it } from "vitest";
import * as z from "zod";
import { Draw } from "../../fuzz/draw.ts";
import { valid } from "../../fuzz/from-schema.ts";
import { fuzzGroup } from "../../fuzz/fuzz.ts";
import { mutatedText } from "../../fuzz/hostile.ts";
import { runGroups } from "../../fuzz/run-groups.ts";
import { plainGroup, target } from "../../fuzz/target.ts";
import { AgentFrame } from "../../src/protocol/agent-frames.ts";
import { CoordinatorFrame } from "../../src/protocol/coordinator-frames.ts";

const texts = (check: (text: string) => void | Promise<void>) =>
  plainGroup(target<string>({ name: "texts", inputs: 100_000, make: (draw) => mutatedText(draw, "a(b)c"), check }));

it("makes the same inputs of the same seed, and others of another", async () => {
  const seen = async (seed: number) => {
    const inputs: string[] = [];
    await fuzzGroup(
      texts((text) => void inputs.push(text)),
      { seed, scale: 0.0005 },
    );
    return inputs;
  };
  expect(await seen(7)).toEqual(await seen(7));
  expect(await seen(7)).not.toEqual(await seen(8));
});

it("tells a failing input as small as it can be, with where it was", async () => {
  const [result] = await fuzzGroup(
    texts((text) => {
      if (text.includes("((")) throw new Error("two brackets");
    }),
    { seed: 1, scale: 1 },
  );
  const [failure] = result?.failures ?? [];
  expect(failure).toMatchObject({ target: "texts", input: '"(("' });
  expect(failure?.error).toContain("two brackets");
  const again = await fuzzGroup(
    texts((text) => {
      if (text.includes("((")) throw new Error("two brackets");
    }),
    { seed: 1, scale: 1, at: failure?.at ?? -1 },
  );
  expect(again[0]?.failures).toHaveLength(1);
});

it("takes a rejection that nobody waits for as a failure", async () => {
  const [result] = await fuzzGroup(
    texts(async () => void Promise.reject(new Error("left behind"))),
    { seed: 1, scale: 0.0002 },
  );
  expect(result?.failures[0]?.error).toContain("left behind");
});

it("takes an input that keeps the processor busy as a failure", async () => {
  const [result] = await fuzzGroup(
    texts(() => void /^(a+)+$/.test(`${"a".repeat(27)}!`)),
    { seed: 1, scale: 0.0002 },
  );
  expect(result?.failures[0]?.error).toContain("250 ms of CPU");
});

it("tells a process that cannot even begin, and ends it", async () => {
  const [result] = await runGroups({ groups: ["no such group"], processes: 1, seed: 1, scale: 1 });
  expect(result?.failures[0]?.error).toContain('there is no group "no such group"');
});

it("makes frames that fit, of every schema of the wire", () => {
  for (const schema of [...AgentFrame.options, ...CoordinatorFrame.options]) {
    for (let seed = 0; seed < 200; seed += 1) {
      const frame = valid(Draw.seeded(seed), schema);
      expect(schema.safeParse(frame).error, JSON.stringify(frame)).toBeUndefined();
    }
  }
});

it("refuses a schema it knows no values for, instead of leaving it out", () => {
  expect(() => valid(Draw.seeded(1), z.string().regex(/^unknown$/))).toThrow("no text is known");
  expect(() => valid(Draw.seeded(1), z.bigint())).toThrow('no generator for a zod schema of type "bigint"');
});
