import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import Docker from "dockerode";
import { LABEL_NODE } from "../../src/engine/container.ts";
import { createDockerEngine } from "../../src/engine/docker.ts";
import { alternating, type Bench, CannotRun, type Measured, type Round } from "../lib/figure.ts";
import { nextFrame } from "../lib/frames.ts";
import { type BenchNode, benchNode } from "../lib/node.ts";

const ROUNDS = 11;
const PULL_ROUNDS = 5;
const IMAGE_BYTES = 200 * 1024 * 1024;
const COMMAND = ["sleep", "1000"];

/** From the coordinator's assign frame to its having the event that the work runs. */
export const bringUp: Bench = {
  key: "assign",
  figures: [
    "assign to running, image present",
    "the same, image named by a tag: the registry is asked",
    "what a network of its own adds (isolate_lan)",
  ],
  async run(bench) {
    const engine = await bench.engine();
    const docker = new Docker({ socketPath: engine.socket });
    await using node = await benchNode({ root: bench.root, socket: engine.socket });
    node.start();
    await node.connected();
    // By its digest: a tag may have moved, so for one the registry is asked whatever the engine has.
    const [byDigest = ""] = (await docker.getImage(engine.image).inspect()).RepoDigests;
    const twin = await twinOf(docker, node, byDigest);
    const measured = async (figure: string, image: string): Promise<Measured> => ({
      figure,
      unit: "ms",
      baseline: "create + start of the same container, dockerode",
      rounds: await alternating({ rounds: ROUNDS }, () => assigned(node, image), twin),
      note: "from the assign frame on the wire to the event",
    });
    const [present = "", byTag = "", network = ""] = this.figures;
    return [
      { ...(await measured(present, byDigest)), reach: { ratioAtMost: 1.1 } },
      await measured(byTag, engine.image),
      await networkOfItsOwn(engine.socket, network),
    ];
  },
};

/** The same with an image that has to come first. */
export const pulling: Bench = {
  key: "pull",
  figures: ["assign to running, 200 MB image from the local registry"],
  async run({ root, engine: open, log }) {
    const engine = await open();
    const cli = await dockerCli(engine.socket);
    await using node = await benchNode({ root, socket: engine.socket });
    node.start();
    await node.connected();
    const image = await engine.padded(IMAGE_BYTES);
    const forget = () => cli("rmi", "--force", image);
    const rounds = await alternating(
      { rounds: PULL_ROUNDS, warmUp: 1 },
      async () => {
        const took = await assigned(node, image);
        await forget();
        log(`pulled by gpunode in ${took.toFixed(0)} ms`);
        return took;
      },
      async () => {
        const began = performance.now();
        await cli("pull", "--quiet", image);
        const id = (await cli("run", "--detach", image, ...COMMAND)).trim();
        const took = performance.now() - began;
        await cli("rm", "--force", "--volumes", id);
        await forget();
        log(`pulled by docker in ${took.toFixed(0)} ms`);
        return took;
      },
    );
    return [
      {
        figure: this.figures[0] ?? "",
        unit: "ms",
        baseline: "docker pull + docker run -d",
        rounds,
        reach: { ratioAtMost: 1.1 },
      },
    ];
  },
};

let given = 0;

/** Milliseconds from the assign frame to the event "running". The workload is gone again afterwards. */
async function assigned(node: BenchNode, image: string): Promise<number> {
  given += 1;
  const id = `b${given}`;
  const sent = nextFrame("sent", '"type":"assign"', `"${id}"`);
  const runs = nextFrame("received", `"${id}"`, '"state":"running"');
  await node.client.submit({ id, image, command: COMMAND, gpus: { count: 1 }, stop: { graceSeconds: 0 } });
  const took = (await runs).at - (await sent).at;
  await node.client.release(id);
  const isThere = async () => (await node.client.workload(id)).endedAt === undefined;
  while (await isThere()) await sleep(20);
  // Its container is removed after its end is told.
  await sleep(200);
  return took;
}

/** Creates and starts what the agent makes of a workload, as the engine tells of it, with dockerode alone. */
async function twinOf(docker: Docker, node: BenchNode, image: string): Promise<() => Promise<number>> {
  await node.client.submit({ id: "model", image, command: COMMAND, gpus: { count: 1 } });
  await node.reaches("model", "running");
  const [made] = await docker.listContainers({ filters: { label: ["org.gpunode.workload=model"] } });
  if (made === undefined) throw new Error("the engine has no container of the workload");
  const { Config, HostConfig } = await docker.getContainer(made.Id).inspect();
  await node.client.release("model");
  const { Image, Env, Cmd, StopSignal } = Config as typeof Config & { StopSignal?: string };
  const request = { Image, Env, Cmd, StopSignal, HostConfig, Healthcheck: { Test: ["NONE"] } };
  return async () => {
    const began = performance.now();
    const container = await docker.createContainer(request as Docker.ContainerCreateOptions);
    await container.start();
    const took = performance.now() - began;
    await container.remove({ force: true, v: true });
    return took;
  };
}

/** What isolation adds to it: a network of the workload's own, made before its container. */
async function networkOfItsOwn(socket: string, figure: string): Promise<Measured> {
  await using engine = createDockerEngine({ socketPath: socket, nodeId: "bench" });
  const rounds: Round[] = [];
  for (let round = -1; round < ROUNDS; round += 1) {
    const name = `gpunode-bench-${round + 1}`;
    const began = performance.now();
    const labels = { [LABEL_NODE]: "bench" };
    const id = await engine.networks.create({ name, bridge: `gpnbench${round + 1}`, labels, ipv6: false });
    const took = performance.now() - began;
    await engine.networks.remove(id);
    if (round >= 0) rounds.push({ ours: took });
  }
  return { figure, unit: "ms", rounds, note: "Docker's work, and the price of network.isolate_lan" };
}

/** Docker's own command line; the registry it pulls from is in this process. Throws `CannotRun` where there is none. */
async function dockerCli(socket: string): Promise<(...args: string[]) => Promise<string>> {
  const run = promisify(execFile);
  const env = { ...process.env, DOCKER_HOST: `unix://${socket}` };
  await run("docker", ["--version"], { env }).catch(() => {
    throw new CannotRun('there is no "docker" command here');
  });
  return async (...args) => (await run("docker", args, { env })).stdout;
}
