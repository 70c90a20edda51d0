import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { engineIsPrivate } from "../support/engine.ts";
import { FAIR } from "./network.ts";
import { World } from "./world.ts";

/** Rounds of the mix; `npm run test:faults` sets 200, the ordinary test run does a few. */
const ROUNDS = Number(process.env.GPUNODE_FAULT_ROUNDS ?? 6);
/** The same seed makes the same faults in the same order (what they hit is timing). */
const SEED = Number(process.env.GPUNODE_FAULT_SEED ?? randomInt(1, 2 ** 31 - 1));

/** Mulberry32: small, and good enough to choose faults. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = generator(SEED);
const below = (limit: number) => Math.floor(random() * limit);
const oneOf = <T>(list: readonly T[]): T => list[below(list.length)] as T;

interface Fault {
  name: string;
  strike(world: World): Promise<void> | void;
}

const cut = (name: string, weather: Partial<typeof FAIR>): Fault => ({
  name,
  strike: (world) => {
    world.network.weather = { ...FAIR, ...weather };
  },
});

const FAULTS: readonly Fault[] = [
  { name: "agent killed", strike: (world) => world.killAgent() },
  { name: "agent stopped", strike: (world) => world.killAgent("SIGTERM") },
  { name: "coordinator killed", strike: (world) => world.killCoordinator() },
  { name: "engine killed", strike: (world) => world.engine.kill() },
  { name: "engine restarted", strike: (world) => world.engine.restart() },
  {
    name: "agent and coordinator killed",
    strike: async (world) => {
      await Promise.all([world.killAgent(), world.killCoordinator()]);
    },
  },
  {
    name: "agent and engine killed",
    strike: async (world) => {
      await Promise.all([world.killAgent(), world.engine.kill()]);
    },
  },
  { name: "wall clock an hour ahead", strike: (world) => world.setClock(3_600_000) },
  { name: "wall clock an hour back", strike: (world) => world.setClock(-3_600_000) },
  { name: "state disk full", strike: (world) => world.fillDisk() },
  {
    name: "state disk full, agent killed",
    strike: async (world) => {
      world.fillDisk();
      await world.killAgent();
    },
  },
  cut("network lost", { up: "lost", down: "lost" }),
  cut("way up lost", { up: "lost" }),
  cut("way down lost", { down: "lost" }),
  cut("network refuses", { closed: true }),
  cut("30 % loss", { loss: 0.3 }),
  cut("300 ms delay", { delayMs: 300 }),
  cut("10 KiB/s", { bytesPerSecond: 10_240 }),
];

const LIVES = [
  { command: ["sh", "-c", "sleep 0.5"] },
  { command: ["sh", "-c", "sleep 1.5; exit 3"] },
  { command: ["sh", "-c", "exit 5"], restart: { policy: "on-failure", maxRetries: 1 } },
  { command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"], released: true },
  { command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], released: true },
  { command: ["sh", "-c", "while :; do sleep 0.1; done"], preempted: true, checkpoint: true },
] as const;

describe.runIf(engineIsPrivate)(`faults at random, seed ${SEED}`, () => {
  let world: World;
  beforeAll(async () => {
    world = await World.open({ random, liveRestore: below(2) === 1 });
  }, 60_000);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
  }, 60_000);

  test(
    `${ROUNDS} rounds: nothing is lost, doubled or left behind`,
    async () => {
      const struck = new Map<string, number>();
      for (let round = 1; round <= ROUNDS; round++) {
        const fault = oneOf(FAULTS);
        struck.set(fault.name, (struck.get(fault.name) ?? 0) + 1);
        const where = `seed ${SEED}, round ${round}: ${fault.name}`;
        const ids: string[] = [];
        const wishes: (() => Promise<unknown>)[] = [];
        for (let n = 0; n < 1 + below(3); n++) {
          const life = oneOf(LIVES);
          const id = `r${round}-${n}`;
          ids.push(id);
          await world.client.submit({
            id,
            image: world.image,
            command: [...life.command],
            gpus: { count: below(3) },
            stop: {
              graceSeconds: 1,
              ...("checkpoint" in life && { checkpoint: { exec: ["sh", "-c", "sleep 0.2"], timeoutSeconds: 1 } }),
            },
            ...("restart" in life && { restart: life.restart }),
          });
          if ("released" in life) wishes.push(() => world.client.release(id));
          if ("preempted" in life) wishes.push(() => world.client.preempt(id).catch(() => world.client.release(id)));
        }
        await sleep(below(1500));
        const wishFirst = below(2) === 1;
        if (wishFirst) for (const wish of wishes) await wish();
        await fault.strike(world);
        await sleep(below(2500));
        await world.heal();
        // What does not end by itself must be asked to, also where the fault swallowed the first word.
        for (const id of ids) await world.client.release(id).catch(() => undefined);
        await world.expectTruth(ids).catch((error: unknown) => {
          throw new Error(where, { cause: error });
        });
      }
      expect([...struck.values()].reduce((sum, count) => sum + count, 0)).toBe(ROUNDS);
      console.log(
        `faults: seed ${SEED}, ${ROUNDS} rounds: ${[...struck].map(([name, count]) => `${name} ${count}`).join(", ")}`,
      );
    },
    ROUNDS * 120_000,
  );
});
