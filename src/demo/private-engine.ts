import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { type Daemon, daemonOf } from "./daemon.ts";
import { findOrUnpack, type Programs, TestbedUnavailableError, type WantedPrograms } from "./debian-packages.ts";
import { callEngine } from "./engine-api.ts";
import {
  bridgeName,
  cgroupName,
  ENGINE_COUNT_MAX,
  type EngineState,
  processStartTicks,
  readEngineState,
  subnetOf,
} from "./engine-state.ts";
import { outsidePathsOfEngines, removeAbandonedEngines, removeEngine } from "./engine-teardown.ts";

const execFileAsync = promisify(execFile);

/** Of dockerd's sockets below its run folder, the longest is `exec/containerd/containerd-debug.sock`. */
const LONGEST_SOCKET = "/exec/containerd/containerd-debug.sock".length;
/** `sun_path` of a unix socket holds 108 bytes with the closing zero (`man 7 unix`). */
const SOCKET_PATH_MAX = 107;
/** What dockerd gets for each call while it is emptied, before everything is killed. */
const EMPTY_TIMEOUT_MS = 10_000;

/** Made by dockerd 20.10 and containerd 1.6 whatever data and run folders they are given; parents after children. */
const OUTSIDE_PATHS = [
  ...["/etc/docker/key.json", "/etc/docker"],
  ...["/run/containerd/s", "/run/containerd", "/run/docker/plugins", "/run/docker"],
  ...["/opt/containerd/bin", "/opt/containerd/lib", "/opt/containerd"],
];

const ENGINE_PROGRAMS: WantedPrograms = {
  dockerd: "docker.io",
  containerd: "containerd",
  "containerd-shim-runc-v2": "containerd",
  runc: "runc",
  ip: "iproute2",
};

/** Debian's iptables is a link that only an installation makes. */
const FIREWALL_PROGRAMS: WantedPrograms = { "iptables-nft": "iptables", "ip6tables-nft": "iptables" };

export interface PrivateEngineOptions {
  /** Folder for all of the engine's files: absent or empty before, removed at the end. On a disk, not in memory. */
  readonly dir: string;
  /** Told, in one line each, what is done to this machine and why. */
  readonly log: (line: string) => void;
  /** Folder in which Debian's packages are unpacked and kept for the next time; default: inside `dir`, gone with it. */
  readonly packagesDir?: string;
  /** Accept GPU requests (`DeviceRequests`) although there is no NVIDIA toolkit: containers only see the variables. */
  readonly gpuHook?: boolean;
  /** Containers outlive a stop or crash of dockerd (`live-restore`). */
  readonly liveRestore?: boolean;
  /**
   * Name of a network namespace (`ip netns`) that dockerd and its networks live in, instead of this machine's own: there it sets up
   * firewall, forwarding and address translation as an installed engine does. The bridge of this machine then only holds its number.
   */
  readonly networkNamespace?: string;
  /** Further keys of dockerd's own configuration file. */
  readonly daemonConfig?: Readonly<Record<string, unknown>>;
  /** Program and arguments that dockerd is started through; it has to become dockerd, as `unshare` does. */
  readonly through?: readonly string[];
  readonly signal?: AbortSignal;
}

/** A Docker engine of our own, beside and apart from whatever else runs on the machine. */
export interface PrivateEngine extends AsyncDisposable {
  /** Path of the API's unix socket. */
  readonly socket: string;
  readonly dir: string;
  /** Name of its bridge, whose address containers know the machine by. */
  readonly bridge: string;
  /** IPv4 address of the machine on that bridge. */
  readonly gateway: string;
  /** dockerd's log file. */
  readonly logFile: string;
  /** dockerd's process id; undefined while it does not run. */
  readonly pid: number | undefined;
  /** SIGKILLs dockerd alone, as a crash does, and waits until it is gone. Containers and shims stay as they are. */
  kill(): Promise<void>;
  /** Starts dockerd again on the same data: after `kill`, or after first ending it in an orderly way (SIGTERM). */
  restart(): Promise<void>;
  /** Removes the engine and everything in it. Does nothing the second time. */
  stop(): Promise<void>;
}

/**
 * Starts a dockerd that shares nothing with the user's: own data, run folder, socket, configuration, containerd, bridge,
 * subnet and cgroup, and no firewall rule. Ports of containers on the default bridge are
 * published on loopback unless they name another address. Where the machine has no dockerd, Debian's is
 * fetched and unpacked (see `findOrUnpack`). First removes what engines of killed processes left on this machine.
 *
 * Containers reach each other and this machine, but not the internet: that would take a rule in the user's firewall.
 *
 * @throws {TestbedUnavailableError} where this machine cannot have one (not Linux, not root, not Debian).
 */
export async function startPrivateEngine(options: PrivateEngineOptions): Promise<PrivateEngine> {
  requireRoot();
  const dir = resolve(options.dir);
  await claimFolder(dir);
  const created: { runDir?: string; state?: EngineState } = {};
  let env: Readonly<Record<string, string>> = {};
  try {
    const isApart = options.networkNamespace !== undefined;
    const programs = await findOrUnpack(isApart ? { ...ENGINE_PROGRAMS, ...FIREWALL_PROGRAMS } : ENGINE_PROGRAMS, {
      dir: options.packagesDir ?? join(dir, "packages"),
      log: options.log,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    env = programs.env;
    for (const left of await removeAbandonedEngines(env)) {
      options.log(`Removed a private Docker engine that an earlier run had left in ${left}.`);
    }
    created.runDir = await shortFolder(dir);
    created.state = await claimBridge(dir, created.runDir, env);
    await writeFile(join(dir, "daemon.json"), JSON.stringify(daemonConfig(created.state, options)));
    const folders = [
      ...(options.gpuHook ? [await writeGpuHook(dir)] : []),
      ...(isApart ? [await writeFirewall(dir, programs)] : []),
      env.PATH ?? "",
    ];
    const daemon = daemonOf(created.state, { ...programs, env: { ...env, PATH: folders.join(delimiter) } }, options);
    await daemon.start(options.signal);
    return engineHandle(created.state, daemon, env);
  } catch (error) {
    if (created.state !== undefined) await removeEngine(created.state, env);
    if (created.runDir !== undefined) await rm(created.runDir, { recursive: true, force: true });
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

function engineHandle(state: EngineState, daemon: Daemon, env: Readonly<Record<string, string>>): PrivateEngine {
  let stopped: Promise<void> | undefined;
  const stop = async () => {
    if (daemon.pid() !== undefined) {
      await emptyEngine(daemon.socket);
      await daemon.terminate();
    }
    await removeEngine(state, env);
  };
  return {
    socket: daemon.socket,
    dir: state.dir,
    bridge: bridgeName(state.number),
    gateway: subnetOf(state.number).gateway,
    logFile: daemon.logFile,
    get pid() {
      return daemon.pid();
    },
    kill: () => daemon.kill(),
    restart: async () => {
      await daemon.terminate();
      await daemon.start();
    },
    stop: () => {
      stopped ??= stop();
      return stopped;
    },
    [Symbol.asyncDispose]() {
      return this.stop();
    },
  };
}

/** Orderly first, so that dockerd itself takes its mounts and devices away; what it leaves, `removeEngine` takes. */
async function emptyEngine(socket: string): Promise<void> {
  const timeoutMs = EMPTY_TIMEOUT_MS;
  const idsAt = async (path: string) => {
    const { body } = await callEngine(socket, { path, timeoutMs });
    return (JSON.parse(body) as { Id: string }[]).map(({ Id }) => Id);
  };
  try {
    const containers = await idsAt("/containers/json?all=true");
    const remove = (path: string) => callEngine(socket, { method: "DELETE", path, timeoutMs });
    await Promise.all(containers.map((id) => remove(`/containers/${id}?force=true&v=true`)));
    const networks = await idsAt(`/networks?filters=${encodeURIComponent('{"type":["custom"]}')}`);
    await Promise.all(networks.map((id) => remove(`/networks/${id}`)));
  } catch {
    // A hung or dying engine is emptied from outside, by its processes, mounts and devices.
  }
}

function requireRoot(): void {
  const remedy =
    "Install Docker and start it, so that its engine can be used, or run this as root on Debian or Ubuntu.";
  if (process.platform !== "linux") {
    throw new TestbedUnavailableError(
      `A Docker engine of our own needs Linux, and this is ${process.platform}. ${remedy}`,
    );
  }
  if (process.geteuid?.() !== 0) {
    throw new TestbedUnavailableError(
      `A Docker engine of our own needs root, and this is user ${process.geteuid?.()}. ${remedy}`,
    );
  }
}

async function claimFolder(dir: string): Promise<void> {
  // The alias of the bridge holds the path; the kernel takes 255 bytes.
  if (Buffer.byteLength(dir) > 255) throw new Error(`The engine's folder ${dir} has a path longer than 255 bytes.`);
  await mkdir(dir, { recursive: true });
  const entries = await readdir(dir);
  const state = await readEngineState(dir);
  if (entries.length === 0) return;
  if (state?.dir !== dir) throw new Error(`The folder ${dir} is not empty. Name one that is empty or does not exist.`);
  if (processStartTicks(state.owner.pid) === state.owner.startTicks) {
    throw new Error(`The folder ${dir} is in use by the private engine of process ${state.owner.pid}.`);
  }
  await removeEngine(state, {});
  await mkdir(dir, { recursive: true });
}

async function shortFolder(dir: string): Promise<string> {
  if (Buffer.byteLength(dir) + LONGEST_SOCKET <= SOCKET_PATH_MAX) return dir;
  const short = Buffer.byteLength(tmpdir()) + "/gpunode-XXXXXX".length + LONGEST_SOCKET <= SOCKET_PATH_MAX;
  return mkdtemp(join(short ? tmpdir() : "/tmp", "gpunode-"));
}

/** Takes the first free number: the kernel refuses a second device of the same name, so the name is the lock. */
async function claimBridge(dir: string, runDir: string, env: Readonly<Record<string, string>>): Promise<EngineState> {
  const ip = (...args: string[]) => execFileAsync("ip", args, { env: { ...process.env, ...env } });
  const routes = await readFile("/proc/net/route", "utf8").catch(() => "");
  const outsidePaths = await pathsToRemove();
  for (let number = 0; number < ENGINE_COUNT_MAX; number++) {
    const bridge = bridgeName(number);
    if (routes.includes(`\t${routeWord(number)}\t`)) continue;
    const added = await ip("link", "add", bridge, "type", "bridge").then(
      () => true,
      (error: { stderr?: string }) => {
        if (/File exists/i.test(error.stderr ?? "")) return false;
        throw new TestbedUnavailableError(
          `This machine does not let us add a network bridge (${error.stderr?.trim()}). In a container, run it with ` +
            "--privileged or use the engine of the machine around it.",
        );
      },
    );
    if (!added) continue;
    const startTicks = processStartTicks(process.pid) ?? "";
    const state: EngineState = { dir, runDir, number, owner: { pid: process.pid, startTicks }, outsidePaths };
    await writeFile(join(dir, "engine.json"), JSON.stringify(state));
    await ip("link", "set", bridge, "alias", dir);
    await ip("addr", "add", subnetOf(number).bridgeCidr, "dev", bridge);
    await ip("link", "set", bridge, "up");
    return state;
  }
  throw new Error(`All ${ENGINE_COUNT_MAX} subnets for private engines are in use (see ip link show type bridge).`);
}

/** A /24 or /25 network as `/proc/net/route` writes it: little-endian hexadecimal. */
function routeWord(number: number): string {
  return Buffer.from([0, number, 213, 10]).toString("hex").toUpperCase();
}

/** The paths outside its folder that this engine will have made, or that another private engine has made before it. */
async function pathsToRemove(): Promise<string[]> {
  const ours = await outsidePathsOfEngines();
  const absent = await Promise.all(
    OUTSIDE_PATHS.map((path) =>
      access(path).then(
        () => false,
        () => true,
      ),
    ),
  );
  return OUTSIDE_PATHS.filter((path, index) => absent[index] || ours.has(path));
}

function daemonConfig(state: EngineState, options: PrivateEngineOptions): Record<string, unknown> {
  const { poolBase, bridgeCidr } = subnetOf(state.number);
  const isApart = options.networkNamespace !== undefined;
  return {
    "data-root": join(state.dir, "data"),
    "exec-root": join(state.runDir, "exec"),
    ...(isApart ? { bip: bridgeCidr } : { bridge: bridgeName(state.number) }),
    "default-address-pools": [{ base: poolBase, size: 28 }],
    // Firewall and forwarding belong to the user; docker-proxy carries published ports without either.
    iptables: isApart,
    "ip-masq": isApart,
    "ip-forward": isApart,
    ip: "127.0.0.1",
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "cgroup-parent": `/${cgroupName(state.number)}`,
    "live-restore": options.liveRestore ?? false,
    ...options.daemonConfig,
  };
}

/** What the NVIDIA toolkit calls its hook; dockerd looks for it on its `PATH` and then accepts driver `nvidia`. */
async function writeGpuHook(dir: string): Promise<string> {
  const folder = join(dir, "hooks");
  await mkdir(folder);
  // runc writes the container's state to it and takes a closed pipe for a failure, so it is read to its end.
  const script = "#!/bin/sh\ncat >/dev/null\n";
  await writeFile(join(folder, "nvidia-container-runtime-hook"), script, { mode: 0o755 });
  return folder;
}

/** What dockerd calls to set up its firewall: Debian's programs under their usual names, with their modules where those were unpacked. */
async function writeFirewall(dir: string, { paths, env }: Programs): Promise<string> {
  const folder = join(dir, "firewall");
  await mkdir(folder);
  const modules = env.LD_LIBRARY_PATH?.split(delimiter).map((libraries) => join(libraries, "xtables"));
  for (const name of ["iptables", "ip6tables"]) {
    const set = modules === undefined ? "" : `XTABLES_LIBDIR='${modules.join(delimiter)}' `;
    const script = `#!/bin/sh\n${set}exec '${paths[`${name}-nft`]}' "$@"\n`;
    await writeFile(join(folder, name), script, { mode: 0o755 });
  }
  return folder;
}
