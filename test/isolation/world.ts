import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { formatCidr } from "../../src/isolation/addresses.ts";
import { readSurroundings } from "../../src/isolation/surroundings.ts";
import type { Commands, DriverOptions } from "./driver.ts";

const execFileAsync = promisify(execFile);
const packagesDir = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");

/** Everybody who listens does so on this port. */
export const PORT = 8080;

/** Where the others are, as the machine's neighbours and the internet. All of it exists in this test's namespaces only. */
export const PLACES = {
  machine: { lan: "192.168.77.5", lan6: "fd77::5", rack: "45.9.0.5", rack6: "2a09:9::5" },
  lan: "192.168.77.10",
  lan6: "fd77::10",
  rack: "45.9.0.10",
  rack6: "2a09:9::10",
  cgnat: "100.64.9.10",
  metadata: "169.254.169.254",
  internet: "45.1.2.3",
  internet6: "2a00:1::3",
} as const;

/** Answers with its name; on UDP 53 it says of any name that it is the internet's host. */
const NEIGHBOUR = `
const { createServer } = require("node:net");
const { createSocket } = require("node:dgram");
createServer((socket) => { socket.on("error", () => {}); socket.end(Buffer.alloc(Number(process.argv[1]), "x")); }).listen(${PORT}, "::", () => process.send("listening"));
// One socket for each address, so that an answer comes from where it was asked.
for (const own of process.argv.slice(2)) {
const dns = createSocket("udp4").bind(53, own);
dns.on("message", (query, { address, port }) => {
  const end = query.indexOf(0, 12) + 5;
  const isA = query.readUInt16BE(end - 4) === 1;
  const head = Buffer.from(query.subarray(0, 12));
  head.writeUInt16BE(0x8180, 2);
  head.writeUInt16BE(isA ? 1 : 0, 6);
  head.writeUInt32BE(0, 8);
  const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 45, 1, 2, 3]);
  dns.send(Buffer.concat([head, query.subarray(12, end), ...(isA ? [answer] : [])]), port, address);
});
}
process.on("disconnect", () => process.exit(0));
`;

/**
 * A machine with a Docker engine, its LAN and the internet, each a network namespace: the machine forwards and translates as an ordinary
 * Docker host does.
 */
export class World implements AsyncDisposable {
  readonly name = `gpnt${process.pid}`;
  readonly machine = `${this.name}m`;
  readonly #stack = new AsyncDisposableStack();
  #env: NodeJS.ProcessEnv = {};
  nft = "";
  engine!: PrivateEngine;

  static async open(): Promise<World> {
    const world = new World();
    try {
      await world.#build();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const log = (line: string) => console.log(`test world: ${line}`);
    const { paths, env } = await findOrUnpack({ nft: "nftables" }, { dir: packagesDir, log });
    this.nft = paths.nft ?? "";
    this.#env = { ...process.env, ...env };
    await removeAbandoned();
    const { machine, name } = this;
    const [lan, net] = [`${name}l`, `${name}n`];
    for (const ns of [machine, lan, net]) {
      await ip("netns", "add", ns);
      this.#stack.defer(() => ip("netns", "del", ns));
      await ip("-n", ns, "link", "set", "lo", "up");
    }
    await ip("link", "add", "lan0", "netns", machine, "type", "veth", "peer", "name", "eth0", "netns", lan);
    await ip("link", "add", "wan0", "netns", machine, "type", "veth", "peer", "name", "eth0", "netns", net);
    const { resolvers } = await readSurroundings();
    const servers = resolvers.filter(({ family }) => family === 4).map(formatCidr);
    await addresses(machine, "lan0", ["192.168.77.5/24", "45.9.0.5/24", "fd77::5/64", "2a09:9::5/64"]);
    await addresses(machine, "wan0", ["198.18.0.1/30", "fd18::1/64"]);
    const atLan = [PLACES.cgnat, PLACES.metadata, ...servers];
    const own = ["192.168.77.10/24", "45.9.0.10/24", "fd77::10/64", "2a09:9::10/64"];
    await addresses(lan, "eth0", [...own, ...atLan.map((address) => `${address}/32`)]);
    await addresses(net, "eth0", ["198.18.0.2/30", "fd18::2/64", `${PLACES.internet}/32`, `${PLACES.internet6}/128`]);
    for (const address of atLan) await ip("-n", machine, "route", "add", `${address}/32`, "via", PLACES.lan);
    await ip("-n", machine, "route", "add", "default", "via", "198.18.0.2");
    await ip("-n", machine, "route", "add", "default", "via", "fd18::2");
    await ip("-n", lan, "route", "add", "default", "via", PLACES.machine.lan);
    await ip("-n", lan, "route", "add", "default", "via", PLACES.machine.lan6);
    await ip("-n", net, "route", "add", "2a00:5::/32", "via", "fd18::1");
    await this.run(
      "sh",
      "-c",
      "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; echo 1 > /proc/sys/net/ipv4/ip_forward",
    );
    await this.#neighbour(lan, 4, servers);
    await this.#neighbour(net, 4_000_000, []);
    const dir = await mkdtemp(join(tmpdir(), "gpunode-world-"));
    this.#stack.defer(() => rm(dir, { recursive: true, force: true }));
    this.engine = this.#stack.use(
      await startPrivateEngine({ dir, packagesDir, log, networkNamespace: machine, liveRestore: true }),
    );
  }

  async #neighbour(ns: string, bytes: number, nameServers: readonly string[]): Promise<void> {
    const child = inNamespace(ns, [process.execPath, "-e", NEIGHBOUR, String(bytes), ...nameServers], process.env);
    this.#stack.defer(() => ended(child));
    await once(child, "message");
  }

  /** `127.0.0.1:port` on the machine leads to the same port of the test's own loopback: its registry, its coordinator. */
  async relay(port: number): Promise<void> {
    const socket = join(this.engine.dir, `relay-${port}.sock`);
    const server = createServer((near) => {
      const far = connect({ host: "127.0.0.1", port });
      far.on("error", () => near.destroy());
      near.on("error", () => far.destroy());
      near.pipe(far).pipe(near);
    }).listen(socket);
    await once(server, "listening");
    const program = `
      const { connect, createServer } = require("node:net");
      createServer((near) => {
        const far = connect(${JSON.stringify(socket)});
        far.on("error", () => near.destroy());
        near.on("error", () => far.destroy());
        near.pipe(far).pipe(near);
      }).listen(${port}, "127.0.0.1", () => process.send("listening"));
      process.on("disconnect", () => process.exit(0));`;
    const child = inNamespace(this.machine, [process.execPath, "-e", program], process.env);
    this.#stack.defer(async () => {
      await ended(child);
      server.close();
    });
    await once(child, "message");
  }

  /** What goes before a command line, and its environment, for it to run on the machine with nft at hand. */
  get onMachine(): { under: string[]; env: NodeJS.ProcessEnv } {
    return { under: ["nsenter", `--net=/run/netns/${this.machine}`], env: this.#env };
  }

  /** Runs a program on the machine, which sends a message when it is ready. */
  async serve(program: string, ns = this.machine): Promise<void> {
    const child = inNamespace(ns, [process.execPath, "-e", program], process.env);
    this.#stack.defer(() => ended(child));
    await once(child, "message");
  }

  /** A listener on the LAN host that reads what it is sent. */
  async serveOnLan(port: number): Promise<void> {
    await this.serve(
      `require("node:net").createServer((s) => s.on("error", () => {}).resume()).listen(${port}, () => process.send("listening"));
       process.on("disconnect", () => process.exit(0));`,
      `${this.name}l`,
    );
  }

  /** Our table as the machine has it; undefined where it has none. */
  async table(): Promise<string | undefined> {
    return await this.run(this.nft, "list", "table", "inet", "gpunode").catch(() => undefined);
  }

  /** A command on the machine. */
  async run(...command: string[]): Promise<string> {
    const args = [`--net=/run/netns/${this.machine}`, ...command];
    return (await execFileAsync("nsenter", args, { env: this.#env })).stdout;
  }

  /** The same on the LAN host. */
  async runOnLan(...command: string[]): Promise<string> {
    return (await execFileAsync("nsenter", [`--net=/run/netns/${this.name}l`, ...command])).stdout;
  }

  /** An agent's isolation on the machine, as a process of its own. `as` goes before its command line. */
  driver(options: Partial<DriverOptions> = {}, as: readonly string[] = []): Driver {
    const settings = { socketPath: this.engine.socket, nodeId: `${this.name}-node`, ...options };
    const script = join(import.meta.dirname, "driver.ts");
    return new Driver(
      inNamespace(this.machine, [...as, process.execPath, script, JSON.stringify(settings)], this.#env),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** Asks a driver process; each command's answer, or its error. */
export class Driver implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #next = 0;
  log = "";

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on("data", (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    child.on(
      "message",
      ({ id, value, error, code }: { id: number; value?: unknown; error?: string; code?: string }) => {
        if (error === undefined) this.#waiting.get(id)?.resolve(value);
        else this.#waiting.get(id)?.reject(Object.assign(new Error(error), { code }));
        this.#waiting.delete(id);
      },
    );
    child.on("exit", () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the driver is gone: ${this.log}`));
    });
  }

  do<C extends keyof Commands>(command: C, ...args: Parameters<Commands[C]>): ReturnType<Commands[C]> {
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#child.send({ id, command, args }, (error) => error && reject(error));
    return promise as ReturnType<Commands[C]>;
  }

  /** Does something while the driver stands still, as on a machine that is too busy for it. */
  async whileHalted(act: () => Promise<unknown>): Promise<void> {
    this.#child.kill("SIGSTOP");
    try {
      await act();
    } finally {
      this.#child.kill("SIGCONT");
    }
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await once(this.#child, "close");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.connected) await this.do("leave").catch((error: unknown) => console.log(error));
    await ended(this.#child);
  }
}

function inNamespace(ns: string, command: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  return spawn("nsenter", [`--net=/run/netns/${ns}`, ...command], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
    env,
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  if (child.connected) child.disconnect();
  await exited;
}

/** Namespaces of runs that were killed; a namespace without processes ends with its name, and everything in it. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir("/run/netns").catch(() => [])) {
    const pid = /^gpnt(\d+)[mln]$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await ip("netns", "del", name);
  }
}

async function ip(...args: string[]): Promise<void> {
  await execFileAsync("ip", args);
}

async function addresses(ns: string, device: string, list: readonly string[]): Promise<void> {
  for (const address of list) {
    const noWait = address.includes(":") ? ["nodad"] : [];
    await ip("-n", ns, "addr", "add", address, "dev", device, ...noWait);
  }
  await ip("-n", ns, "link", "set", device, "up");
}
