import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { keepTidy } from "../../src/cli/tidy.ts";

it("garbage is collected without being asked for, until it is disposed of", async () => {
  const collected = (object: WeakRef<object>) => object.deref() === undefined;
  const dropped = () => new WeakRef({ of: "no use" });
  {
    using _tidy = keepTidy(10);
    const object = dropped();
    await expect.poll(() => collected(object)).toBe(true);
  }
  const timers = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  await sleep(20);
  expect(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length).toBeLessThanOrEqual(timers);
});
