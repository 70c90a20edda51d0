import { closeSync, openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { patiently } from "../agent/rig.ts";
import { engineIsPrivate } from "../support/engine.ts";
import { World } from "./world.ts";

describe.runIf(engineIsPrivate)("a disk of the node's state that", { timeout: 120_000 }, () => {
  let world: World;
  beforeAll(async () => {
    world = await World.open();
  }, 60_000);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
  }, 60_000);

  const submit = (id: string, command: string) =>
    world.client.submit({ id, image: world.image, command: ["sh", "-c", command], gpus: { count: 1 } });
  const running = (id: string) =>
    patiently(async () => ((await world.client.workload(id)).state === "running" ? true : undefined));

  test("is full keeps what runs alive, says so, and nothing of it is lost when there is room again", async () => {
    await submit("alive", "sleep 3; exit 6");
    await running("alive");
    world.fillDisk();
    await submit("late", "exit 4").catch(() => undefined);
    // It ends while nothing can be recorded.
    await sleep(4000);
    const node = (await world.client.nodes())[0];
    expect(node?.connected).toBe(true);
    await patiently(async () =>
      (await world.client.nodes())[0]?.problems?.some(({ code }) => code === "state_refused") ? true : undefined,
    );
    expect((await world.client.workload("alive")).state).toBe("running");
    await world.heal();
    await world.expectTruth(["alive", "late"]);
    expect(await world.client.workload("alive")).toMatchObject({ state: "failed", exitCode: 6 });
    expect(await world.client.workload("late")).toMatchObject({ state: "failed", exitCode: 4 });
    await patiently(async () =>
      (await world.client.nodes())[0]?.problems?.some(({ code }) => code === "state_refused") ? undefined : true,
    );
  });

  test("is damaged costs the records and not the node: it is the same one, and what ran is told as lost", async () => {
    const before = (await world.client.nodes())[0]?.id;
    await submit("unknown", "sleep 60");
    await running("unknown");
    await world.killAgent();
    // With its write-ahead log, from which SQLite would otherwise mend it.
    for (const path of [world.stateFile, `${world.stateFile}-wal`]) {
      const file = openSync(path, "r+");
      writeSync(file, Buffer.alloc(65_536, "garbage"), 0, 65_536, 0);
      closeSync(file);
    }
    world.startAgent();
    await patiently(async () => ((await world.client.workload("unknown")).state === "lost" ? true : undefined), 60_000);
    const nodes = await world.client.nodes();
    expect(nodes.map(({ id, connected }) => [id, connected])).toEqual([[before, true]]);
    expect(nodes[0]?.problems?.map(({ code }) => code)).toContain("state_lost");
    await submit("again", "exit 0");
    await world.expectTruth(["again"]);
  });
});
