import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createDockerEngine, type DockerEngine, type DockerEngineOptions } from "../../src/engine/docker.ts";
import type { ContainerSpec, ContainerState, Engine, LogChunk, PullOptions } from "../../src/workload/needs.ts";
import { LABEL_GENERATION, LABEL_NODE, LABEL_WORKLOAD } from "../../src/workload/needs.ts";
import { engineSocket, pushImage, smallImage } from "../support/engine.ts";

let number = 0;

/** The engine under test on the run's dockerd, as a node of its own. */
export function openEngine(options: Partial<DockerEngineOptions> = {}): DockerEngine {
  number += 1;
  const nodeId = options.nodeId ?? `engine-test-${process.pid}-${number}`;
  return createDockerEngine({ socketPath: options.socketPath ?? engineSocket(), nodeId, ...options });
}

/** A spec that runs `command` in a shell, changed by `changes`. */
export function specFor(
  engine: { nodeId: string },
  image: string,
  command: string,
  changes: Partial<ContainerSpec> = {},
): ContainerSpec {
  number += 1;
  const workload = `w${number}`;
  return {
    name: `gpunode-${engine.nodeId}-${workload}-1`,
    labels: { [LABEL_NODE]: engine.nodeId, [LABEL_WORKLOAD]: workload, [LABEL_GENERATION]: "1" },
    image,
    entrypoint: ["/bin/sh", "-c"],
    command: [command],
    env: {},
    gpus: [],
    ...{ cpus: 1, memoryMiB: 256, shmMiB: 64, pids: 1000, diskMiB: 1024 },
    ports: [],
    hostIp: "127.0.0.1",
    volumes: [],
    stopSignal: "SIGTERM",
    ...changes,
  };
}

/** The image most tests run, pushed and pulled once for each file. */
export async function pullSmallImage(engine: Engine, name = `engine-test/sh-${process.pid}:1`): Promise<string> {
  const reference = await pushImage(name, await smallImage());
  return (await engine.pull(reference, pullOptions())).id;
}

export function pullOptions(changes: Partial<PullOptions> = {}): PullOptions {
  return { noProgressMs: 20_000, onProgress: () => undefined, signal: neverAborted(), ...changes };
}

export function neverAborted(): AbortSignal {
  return new AbortController().signal;
}

/** Creates, starts and waits. */
export async function runToEnd(
  engine: Engine,
  spec: ContainerSpec,
): Promise<{ id: string; state: ContainerState; output: string }> {
  const id = await engine.create(spec);
  await engine.start(id);
  const state = await engine.wait(id, AbortSignal.timeout(20_000));
  if (state === undefined) throw new Error("the container is gone");
  return { id, state, output: await outputOf(engine, id) };
}

export async function outputOf(engine: Engine, id: string): Promise<string> {
  const chunks: LogChunk[] = [];
  for await (const chunk of engine.logs(id, { follow: false, signal: neverAborted() })) chunks.push(chunk);
  return Buffer.concat(chunks.map(({ data }) => data)).toString();
}

/** Removes all that a test's node has left. */
export async function removeAll(engine: Engine & { nodeId: string }): Promise<void> {
  for (const { id } of await engine.list(engine.nodeId)) await engine.remove(id);
}

/** Open descriptors of this process. */
export function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** The same once connections that are just closing have gone. */
export async function settledDescriptors(): Promise<number> {
  for (let count = openDescriptors(); ; ) {
    await sleep(100);
    const next = openDescriptors();
    if (next === count) return count;
    count = next;
  }
}

export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("it did not happen in time");
    await sleep(20);
  }
}

/** The code and reason of what a promise was rejected with. */
export async function refusal(promise: Promise<unknown>): Promise<{ code: string; reason: unknown; message: string }> {
  try {
    await promise;
  } catch (error) {
    const { code, details, message } = error as { code: string; details?: { reason?: unknown }; message: string };
    return { code, reason: details?.reason, message };
  }
  throw new Error("it was not refused");
}
