// Runs in the network namespace of the machine under test and does what its parent asks: one command, one answer.
import { setTimeout as sleep } from "node:timers/promises";
import { createDockerEngine } from "../../src/engine/docker.ts";
import { cidr } from "../../src/isolation/addresses.ts";
import { bridgeOf } from "../../src/isolation/bridge.ts";
import { ask } from "../../src/isolation/conversation.ts";
import { type Isolation, startIsolation } from "../../src/isolation/isolation.ts";
import { nftFirewall } from "../../src/isolation/nft.ts";
import { probeImage } from "../../src/isolation/probe-image.ts";
import { PROBE_PROGRAM, type Target } from "../../src/isolation/probe-program.ts";
import type { PortBinding } from "../../src/protocol/workload.ts";

export interface DriverOptions {
  socketPath: string;
  nodeId: string;
}

export interface IsolateOptions {
  allow?: { to: string; port?: number; protocol?: "tcp" | "udp" }[];
  bandwidthMbit?: number;
  mtu?: number;
  nft?: string;
  live?: string[];
}

export interface WorkloadOptions {
  name: string;
  /** On a network that isolation knows nothing of. */
  unguarded?: true;
  /** What it runs instead of taking orders. */
  program?: string;
  /** Subnet of its own: the engine of the tests gives none out by itself. */
  ipv6?: string;
  ports?: PortBinding[];
}

/** What the parent may ask for, with the answer. */
export interface Commands {
  isolate(options: IsolateOptions): Promise<string | undefined>;
  /** Waits for the trial and makes the network of a workload. */
  open(name: string): Promise<string>;
  problem(): Promise<string | undefined>;
  /** A workload's container that takes orders, on a network of its own. */
  workload(options: WorkloadOptions): Promise<{ id: string; addresses: string[]; gateways: string[]; bridge: string }>;
  /** What it wrote, once it has ended. */
  output(name: string): Promise<string>;
  /** Of an earlier driver. */
  removeContainer(name: string): Promise<void>;
  try(from: string, targets: Target[]): Promise<string[]>;
  refresh(): Promise<void>;
  end(name: string): Promise<void>;
  leave(): Promise<void>;
  networks(): Promise<string[]>;
}

const { socketPath, nodeId } = JSON.parse(process.argv[2] ?? "") as DriverOptions;
const engine = createDockerEngine({ socketPath, nodeId });
const probe = createDockerEngine({ socketPath, nodeId: `${nodeId}.probe` });
const never = new AbortController().signal;
const labels = { "org.gpunode.node": nodeId };
const containers = new Map<string, string>();
let isolation: Isolation | undefined;

function there(): Isolation {
  if (isolation === undefined) throw new Error("not isolated yet");
  return isolation;
}

const log = (_fields: object, message: string) => console.error(message);

const commands: Commands = {
  async isolate({ allow = [], bandwidthMbit, mtu, nft, live = [] }) {
    isolation = await startIsolation({
      nodeId,
      networks: engine.networks,
      probe,
      firewall: nftFirewall(nft === undefined ? {} : { path: nft }),
      exceptions: allow.map(({ to, ...rest }) => ({ to: cidr(to), ...rest })),
      ...(bandwidthMbit !== undefined && { bandwidthMbit }),
      uplinkMtu: () => mtu,
      live: () => [...containers.keys(), ...live],
      changed: () => undefined,
      log: { debug: () => undefined, info: log, warn: log, error: log },
    });
    return isolation.problem();
  },
  open: (name) => there().open({ name, labels }, never),
  problem: async () => isolation?.problem(),
  async workload({ name, unguarded, program, ipv6, ports = [] }) {
    const image = await probeImage(probe, never);
    const bridge = unguarded ? `open-${name}` : bridgeOf(nodeId, name);
    if (unguarded || ipv6 !== undefined) {
      await engine.networks.create({ name, bridge, labels, ipv6: ipv6 ?? false });
    }
    const network = unguarded
      ? ((await engine.networks.list()).find((found) => found.name === name)?.id ?? "")
      : await there().open({ name, labels }, never);
    const id = await engine.create({
      name: `${nodeId}-${name}`,
      labels,
      image: image.id,
      entrypoint: [image.node, "-e", program ?? PROBE_PROGRAM],
      env: { LD_LIBRARY_PATH: image.libraryPath },
      gpus: [],
      ...{ cpus: 1, memoryMiB: 512, shmMiB: 16, pids: 256, diskMiB: 256 },
      ports,
      hostIp: "0.0.0.0",
      volumes: [],
      network,
      stopSignal: "SIGTERM",
    });
    containers.set(name, id);
    await engine.start(id);
    const state = await engine.networks.inspect(network);
    const addresses = state?.addresses[id] ?? [];
    if (program === undefined) await answering(addresses[0] ?? "");
    return { id, addresses, gateways: state?.gateways ?? [], bridge };
  },
  async output(name) {
    await engine.wait(containers.get(name) ?? "", never);
    let text = "";
    const log = engine.logs(containers.get(name) ?? "", { follow: false, signal: never });
    for await (const { data } of log) text += data.toString();
    return text;
  },
  async removeContainer(name) {
    await engine.remove(`${nodeId}-${name}`);
  },
  try: (from, targets) => ask(from, { targets, timeoutMs: 1500 }, never),
  refresh: async () => there().refresh(),
  async end(name) {
    const id = containers.get(name);
    if (id !== undefined) await engine.remove(id);
    containers.delete(name);
    if (isolation !== undefined) await isolation.close(name);
    for (const { id: network, name: found } of await engine.networks.list()) {
      if (found === name) await engine.networks.remove(network);
    }
  },
  async leave() {
    await isolation?.[Symbol.asyncDispose]();
    isolation = undefined;
    await probe[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  },
  networks: async () => (await engine.networks.list()).map(({ name }) => name),
};

async function answering(address: string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    if (await ask(address, { targets: [], timeoutMs: 1000 }, never).catch(() => undefined)) return;
    await sleep(50);
  }
  throw new Error(`nobody answers at ${address}`);
}

process.on("message", ({ id, command, args }: { id: number; command: keyof Commands; args: unknown[] }) => {
  const run = commands[command] as (...all: unknown[]) => Promise<unknown>;
  run(...args).then(
    (value) => process.send?.({ id, value }),
    (error: Error & { code?: string }) => process.send?.({ id, error: error.message, code: error.code }),
  );
});
process.on("disconnect", () => process.exit(0));
