import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type GpuWatch, watchGpus } from "../../../src/gpu/watch.ts";
import { simulatedSmi } from "./simulated.ts";

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries += 1) {
    if (tries > 400) throw new Error("it has not come within 20 s");
    await sleep(50);
  }
}

const codes = (watch: GpuWatch) => watch.inventory.problems.map(({ code }) => code);

describe.concurrent("watchGpus", () => {
  it.each([
    ["a driver that is not loaded", { kind: "driverMissing" }, "no_driver"],
    ["half a document", { kind: "halfDocument", on: ["xml"] }, "unreadable"],
    ["garbage", { kind: "garbage" }, "unreadable"],
  ])("%s is a problem, and its end is seen", async (_what, fault, code) => {
    using simulated = simulatedSmi({ gpus: [{ model: "t4" }], faults: [{ ...fault, afterMs: 0, forMs: 2500 }] });
    let changes = 0;
    {
      await using watch = await watchGpus(simulated.smi, {
        onChange: () => {
          changes += 1;
        },
      });
      expect(codes(watch)).toEqual([code]);
      expect(watch.inventory.gpus).toEqual([]);
      await until(() => watch.inventory.gpus.length === 1);
      expect(codes(watch)).toEqual([]);
      expect(changes).toBe(2);
    }
    await simulated.gone();
  });

  it("is there within 5 s although nvidia-smi hangs, and ends at once", async () => {
    using simulated = simulatedSmi({ gpus: [{ model: "t4" }], faults: [{ kind: "hang" }] });
    const started = performance.now();
    {
      await using watch = await watchGpus(simulated.smi, { onChange: () => undefined });
      expect(performance.now() - started).toBeLessThan(8000);
      expect(codes(watch)).toEqual(["timeout"]);
    }
    expect(performance.now() - started).toBeLessThan(10_000);
    await simulated.gone();
  });
});
