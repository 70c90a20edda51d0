import { randomBytes } from "node:crypto";
import { dirname } from "node:path";
import { createDockerEngine, type DockerEngine } from "../../engine/docker.ts";
import { probeImage } from "../../isolation/probe-image.ts";
import type { Gpu } from "../../protocol/gpu.ts";
import type { ContainerSpec, LABEL_NODE as LabelNode } from "../../workload/needs.ts";
import type { DaemonFacts, SightFacts } from "../facts.ts";
import type { Reader } from "./reader.ts";

/** On all that the doctor makes; the type holds it to the name the workload room uses. */
export const LABEL_NODE: typeof LabelNode = "org.gpunode.node";
/** A node of its own, as the engine sees it: no daemon takes the doctor's containers for its workloads. */
export const DOCTOR = "doctor";
/** The first one of a boot makes the image (120 MB), and the toolkit loads the driver. */
const SIGHT_MS = 18_000;

/** What runs inside: which device files there are, and what nvidia-smi says, as one line of JSON. */
const PROGRAM = `
const { readdirSync } = require("node:fs");
const { spawnSync } = require("node:child_process");
const devices = readdirSync("/dev").filter((name) => name.startsWith("nvidia")).map((name) => "/dev/" + name);
const { stdout, stderr, error } = spawnSync("nvidia-smi", ["-L"], { encoding: "utf8", timeout: 10000 });
const said = error ? error.message : (stdout + stderr).slice(0, 4000);
console.log(JSON.stringify({ devices, said }));
`;
/** Where the toolkit puts the driver's libraries in an image that is of no distribution it knows. */
const DRIVER_LIBRARIES = ["/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

export const sight: Reader<"sight"> = {
  after: ["config", "engine", "gpus", "daemon"],
  limitMs: SIGHT_MS + 2_000,
  async read({ machine, mayStartContainers }, had, signal): Promise<SightFacts | { missing: string }> {
    const { gpus, engine } = { gpus: had("gpus"), engine: had("engine") };
    if (!mayStartContainers) return { missing: "--no-containers was given" };
    if (engine?.about === undefined) return { missing: "the container engine does not answer" };
    if (gpus === undefined || gpus.inventory.gpus.length === 0) return { missing: "no GPU is in sight" };
    if (had("config")?.config.nvidia.simulated === true)
      return { missing: "the GPUs are simulated, and no container gets one" };
    const gpu = idleGpu(gpus.inventory.gpus, had("daemon"));
    if (gpu === undefined) return { missing: "every GPU is split by MIG and has no instance" };
    const limit = AbortSignal.any([signal, AbortSignal.timeout(SIGHT_MS)]);
    await using docker = createDockerEngine({ socketPath: machine.at(engine.socket), nodeId: DOCTOR });
    await removeEnded(docker);
    try {
      return { gpu, ...(await lookFromInside(docker, gpu, had("config")?.config.policy.runtime, limit)) };
    } catch (error) {
      if (limit.aborted) return { missing: `the test container did not end within ${SIGHT_MS / 1000} s` };
      return { gpu, seen: [], devices: [], problem: error instanceof Error ? error.message : String(error) };
    }
  },
};

/** One that nobody works on, where there is one; of a board that is split, an instance. Looking takes nothing from who does. */
function idleGpu(gpus: readonly Gpu[], daemon: DaemonFacts | undefined): string | undefined {
  const busy = new Set(daemon?.state === "running" ? daemon.snapshot.workloads.flatMap(({ gpus: held }) => held) : []);
  const units = gpus.flatMap(({ uuid, mig }) =>
    mig?.enabled === true ? mig.instances.map((instance) => instance.uuid) : [uuid],
  );
  return units.find((uuid) => !busy.has(uuid)) ?? units[0];
}

async function lookFromInside(
  docker: DockerEngine,
  gpu: string,
  runtime: string | undefined,
  signal: AbortSignal,
): Promise<Pick<SightFacts, "seen" | "devices" | "said">> {
  const image = await probeImage(docker, signal);
  const spec: ContainerSpec = {
    name: `gpunode-doctor-${randomBytes(4).toString("hex")}`,
    labels: { [LABEL_NODE]: DOCTOR },
    image: image.id,
    entrypoint: [image.node, "-e", PROGRAM],
    env: {
      LD_LIBRARY_PATH: [image.libraryPath, ...DRIVER_LIBRARIES].join(":"),
      PATH: `/usr/bin:/bin:${dirname(image.node)}`,
    },
    user: "65534:65534",
    gpus: [gpu],
    ...{ cpus: 1, memoryMiB: 512, shmMiB: 16, pids: 256, diskMiB: 256 },
    ports: [],
    hostIp: "127.0.0.1",
    volumes: [],
    network: "none",
    ...(runtime !== undefined && { runtime }),
    stopSignal: "SIGKILL",
  };
  const id = await docker.create(spec);
  try {
    await docker.start(id);
    const ended = await docker.wait(id, signal);
    let output = "";
    for await (const { data } of docker.logs(id, { follow: false, signal })) output += data.toString();
    return whatWasSeen(output, ended?.exitCode);
  } finally {
    await docker.remove(id);
  }
}

/** What a container prints is anybody's word, also that of our own. */
function whatWasSeen(output: string, exitCode: number | undefined): Pick<SightFacts, "seen" | "devices" | "said"> {
  const line = output.split("\n").find((one) => one.startsWith("{")) ?? "";
  let told: { devices?: unknown; said?: unknown } = {};
  try {
    told = JSON.parse(line) as typeof told;
  } catch {
    return {
      seen: [],
      devices: [],
      said: `the test program ended with exit code ${exitCode ?? "unknown"}: ${output.slice(0, 300)}`,
    };
  }
  const devices = Array.isArray(told.devices)
    ? told.devices.filter((one): one is string => typeof one === "string")
    : [];
  const said = typeof told.said === "string" ? told.said : "";
  const seen = [...new Set(said.match(/\b(?:GPU|MIG)-[0-9a-f-]{8,}[^)\s]*/gi) ?? [])];
  return { seen, devices, ...(seen.length === 0 && { said: said.trim().slice(0, 300) }) };
}

/** What a doctor that was killed has left; one that is at work is left alone. */
async function removeEnded(docker: DockerEngine): Promise<void> {
  for (const { id, status } of await docker.list(DOCTOR)) {
    if (status === "exited" || status === "dead") await docker.remove(id);
  }
}
