import { describe, expect, it } from "vitest";
import { createSamplingPause } from "../../src/gpu/sampling-pause.ts";

function setting(saved?: string) {
  const calls: string[] = [];
  const memory = { saved };
  const watch = {
    pause: () => {
      calls.push("pause");
      return Promise.resolve();
    },
    resume: () => void calls.push("resume"),
  };
  const set = (value: string | undefined) => {
    memory.saved = value;
  };
  const open = (bootId: string) => createSamplingPause(watch, { get: () => memory.saved, set }, bootId);
  return { calls, memory, open };
}

describe("the pause of sampling", () => {
  it("lasts from the owner's word to the owner's word, asked for however often", async () => {
    const { calls, open } = setting();
    const pause = open("boot-1");
    expect(pause.isPaused).toBe(false);
    await pause.pause();
    await pause.pause();
    expect(pause.isPaused).toBe(true);
    await pause.resume();
    await pause.resume();
    expect(calls).toEqual(["pause", "resume"]);
    expect(pause.isPaused).toBe(false);
  });

  it("outlives the agent and not the boot", async () => {
    const { calls, memory, open } = setting();
    await open("boot-1").pause();
    expect(memory.saved).toBe("boot-1");
    expect(open("boot-1").isPaused).toBe(true);
    expect(open("boot-2").isPaused).toBe(false);
    expect(calls).toEqual(["pause", "pause"]);
  });

  it("ends only when neither the owner nor the maintenance wants it", async () => {
    const { calls, open } = setting();
    const pause = open("boot-1");
    await pause.setMaintenance(true);
    await pause.pause();
    await pause.setMaintenance(false);
    expect(pause.isPaused).toBe(true);
    await pause.resume();
    expect(calls).toEqual(["pause", "resume"]);
  });

  it("is told to have happened only when the device is let go of", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const pause = createSamplingPause(
      { pause: () => promise, resume: () => undefined },
      { get: () => undefined, set: () => undefined },
      "boot-1",
    );
    let isTold = false;
    const told = pause.pause().then(() => {
      isTold = true;
    });
    await Promise.resolve();
    expect(isTold).toBe(false);
    resolve();
    await told;
    expect(isTold).toBe(true);
  });
});
