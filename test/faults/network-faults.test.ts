import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { patiently } from "../agent/rig.ts";
import { engineIsPrivate } from "../support/engine.ts";
import { FAIR, type Weather } from "./network.ts";
import { World } from "./world.ts";

/** Where sessions broke off again and again, the agent's pause between two attempts has grown to a minute. */
const PATIENCE_MS = 150_000;

describe.runIf(engineIsPrivate)("a network that", { timeout: PATIENCE_MS }, () => {
  let world: World;
  beforeAll(async () => {
    world = await World.open();
  }, 60_000);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
  }, 60_000);

  const sh = (script: string) => ["sh", "-c", script];

  test.each<[string, Partial<Weather>]>([
    ["loses everything", { up: "lost", down: "lost" }],
    ["loses what the node says", { up: "lost" }],
    ["loses what the coordinator says", { down: "lost" }],
    ["refuses", { closed: true }],
  ])(
    "%s: the node is missed within two heartbeats, work goes on, its end is told afterwards",
    async (name, weather) => {
      const id = `cut-${name.replaceAll(" ", "-")}`;
      await world.client.submit({ id, image: world.image, command: sh("sleep 4; exit 3"), gpus: { count: 1 } });
      await patiently(async () => ((await world.client.workload(id)).state === "running" ? true : undefined));
      const began = performance.now();
      world.network.weather = { ...FAIR, ...weather };
      await patiently(async () => ((await world.client.nodes())[0]?.connected === false ? true : undefined));
      // The heartbeat is one second; what is measured includes the asking.
      expect(performance.now() - began).toBeLessThan(4000);
      await sleep(4500 - (performance.now() - began));
      await world.heal();
      await world.expectTruth([id]);
      expect(await world.client.workload(id)).toMatchObject({ state: "failed", exitCode: 3 });
    },
  );

  test.each<[string, Partial<Weather>]>([
    ["loses every third packet", { loss: 0.3 }],
    ["delays by 300 ms", { delayMs: 300 }],
    ["carries 20 KiB a second", { bytesPerSecond: 20_480 }],
  ])("%s: everything happens, later", async (name, weather) => {
    world.network.weather = { ...FAIR, ...weather };
    try {
      const ids = ["a", "b"].map((letter) => `slow-${letter}-${name.replaceAll(" ", "-")}`);
      for (const id of ids) {
        await world.client.submit({ id, image: world.image, command: sh("echo out; exit 4"), gpus: { count: 1 } });
      }
      await world.expectTruth(ids);
      for (const id of ids) expect(await world.client.workload(id)).toMatchObject({ state: "failed", exitCode: 4 });
    } finally {
      world.network.weather = FAIR;
    }
  });
});
