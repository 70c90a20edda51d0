import { afterEach, describe, expect, it } from "vitest";
import { createDockerEngine } from "../../src/engine/docker.ts";
import { GpuAccessWatch } from "../../src/workload/gpu-access.ts";
import { engineSocket, haveEngine, pushImage, smallImage } from "../support/engine.ts";

const uuid = "GPU-11111111-2222-3333-4444-555555555555";
const workload = { id: "train", containerId: "c1", gpus: [uuid] };
const sees = { exitCode: 0, output: `GPU 0: NVIDIA H100 (UUID: ${uuid})\n` };
const blind = { exitCode: 255, output: "Failed to initialize NVML: Unknown Error\n" };

let watch: GpuAccessWatch | undefined;
afterEach(async () => {
  await watch?.[Symbol.asyncDispose]();
});

/** Probes answered one after the other, the last one for good. */
function watching(answers: (typeof sees | Error)[], more: { host?: boolean } = {}) {
  const told: string[] = [];
  const world = { running: [workload], asked: 0 };
  watch = new GpuAccessWatch({
    engine: {
      exec: () => {
        world.asked += 1;
        const answer = (answers.length > 1 ? answers.shift() : answers[0]) as typeof sees | Error;
        return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
      },
    },
    running: () => world.running,
    hostSees: () => more.host ?? true,
    onLost: ({ id }, gpus) => void told.push(`${id} lost ${gpus.join()}`),
    onBack: ({ id }) => void told.push(`${id} back`),
    intervalMs: 10,
    againMs: 5,
  });
  return { told, world };
}

describe("a container that no longer sees its GPU", () => {
  it("is told once, and once when it sees it again", async () => {
    const { told } = watching([sees, blind, blind, blind, blind, sees]);
    await expect.poll(() => told).toEqual([`train lost ${uuid}`, "train back"]);
  });

  it("is no longer blind when it is gone", async () => {
    const { told, world } = watching([blind]);
    await expect.poll(() => told.length).toBe(1);
    world.running = [];
    await expect.poll(() => told).toEqual([`train lost ${uuid}`, "train back"]);
  });

  it("is missed also where it still sees another", async () => {
    const { told } = watching([{ exitCode: 0, output: "GPU 0: X (UUID: GPU-99999999-2222-3333-4444-555555555555)" }]);
    await expect.poll(() => told).toEqual([`train lost ${uuid}`]);
  });

  it.each([
    ["failed once", [blind, sees]],
    ["was asked while the engine was away", [new Error("the engine does not answer")]],
    ["answers what nobody understands", [{ exitCode: 1, output: "segmentation fault" }]],
  ])("is not told of where it only %s", async (_, answers) => {
    const { told, world } = watching(answers);
    await expect.poll(() => world.asked).toBeGreaterThan(5);
    expect(told).toEqual([]);
  });

  it("is not told of where the host does not see the GPU either", async () => {
    const { told, world } = watching([blind], { host: false });
    await expect.poll(() => world.asked).toBeGreaterThan(3);
    expect(told).toEqual([]);
  });

  it("is not asked again where it has no nvidia-smi", async () => {
    const { world } = watching([{ exitCode: 127, output: "" }]);
    await expect.poll(() => world.asked).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(world.asked).toBe(1);
  });
});

describe.runIf(haveEngine)("in a real container", () => {
  it("the devices' going is seen from inside, and their return", async () => {
    const image = await pushImage("workload/access:1", await smallImage());
    await using engine = createDockerEngine({ socketPath: engineSocket(), nodeId: "gpu-access", simulatedGpus: true });
    const signal = new AbortController().signal;
    const { id: imageId } = await engine.pull(image, { noProgressMs: 60_000, onProgress: () => undefined, signal });
    const script = `printf '#!/bin/sh\\n[ -e /blind ] && { echo "Failed to initialize NVML: Unknown Error"; exit 255; }\\necho "GPU 0: X (UUID: ${uuid})"\\n' > /bin/nvidia-smi; chmod 755 /bin/nvidia-smi; sleep 120`;
    const limits = { cpus: 1, memoryMiB: 256, shmMiB: 64, pids: 100, diskMiB: 1024 };
    const spec = { ...limits, env: {}, gpus: [], ports: [], hostIp: "127.0.0.1", volumes: [], stopSignal: "SIGKILL" };
    const create = (name: string, command: string[]) =>
      engine.create({ ...spec, name, labels: { "org.gpunode.node": "gpu-access" }, image: imageId, command });
    const id = await create("gpu-access-1", ["sh", "-c", script]);
    const bare = await create("gpu-access-2", ["sleep", "120"]);
    const told: string[] = [];
    try {
      await engine.start(id);
      await engine.start(bare);
      watch = new GpuAccessWatch({
        engine,
        running: () => [
          { ...workload, containerId: id },
          { id: "bare", containerId: bare, gpus: [uuid] },
        ],
        hostSees: () => true,
        onLost: (of) => void told.push(`${of.id} lost`),
        onBack: (of) => void told.push(`${of.id} back`),
        intervalMs: 50,
        againMs: 20,
      });
      const inside = (command: string) => engine.exec(id, ["sh", "-c", command], { timeoutMs: 5000, signal });
      await inside("touch /blind");
      await expect.poll(() => told, { timeout: 10_000 }).toEqual(["train lost"]);
      await inside("rm /blind");
      await expect.poll(() => told, { timeout: 10_000 }).toEqual(["train lost", "train back"]);
      await watch[Symbol.asyncDispose]();
    } finally {
      await engine.remove(id);
      await engine.remove(bare);
    }
  });
});
