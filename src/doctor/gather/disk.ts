import { randomBytes } from "node:crypto";
import { statfsSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DiskFacts, Volume } from "../facts.ts";
import type { Machine } from "../machine.ts";
import type { Reader } from "./reader.ts";

const MIB = 1024 * 1024;
/** A network file system whose server is away hangs. */
const STAT_MS = 3_000;

export const disk: Reader<"disk"> = {
  after: ["config", "engine"],
  limitMs: STAT_MS,
  read({ machine }, had): DiskFacts {
    const stateDir = had("config")?.config.stateDir;
    const state = stateDir === undefined ? undefined : volumeOf(machine, stateDir);
    const dataRoot = had("engine")?.about?.dataRoot;
    const images = dataRoot === undefined ? undefined : volumeOf(machine, dataRoot);
    return { ...(state !== undefined && { state }), ...(images !== undefined && { images }) };
  },
};

/** The file system that a path, or the nearest folder above it that there is, lies on. */
function volumeOf(machine: Machine, wanted: string): Volume | undefined {
  const path = existing(machine, wanted);
  try {
    const { bsize, blocks, bavail, files, ffree } = statfsSync(machine.at(path));
    const mount = mountOf(machine.text("/proc/self/mountinfo") ?? "", path);
    return {
      path: wanted,
      freeMiB: Math.floor((bavail * bsize) / MIB),
      totalMiB: Math.floor((blocks * bsize) / MIB),
      // btrfs and others have no number of them.
      ...(files > 0 && { freeInodesPercent: (ffree / files) * 100 }),
      ...(mount !== undefined && { fileSystem: mount.fileSystem }),
      mountOptions: mount?.options ?? [],
    };
  } catch {
    return undefined;
  }
}

function existing(machine: Machine, path: string): string {
  let at = path;
  while (at !== "/" && at !== "." && machine.look(at) === undefined) at = dirname(at);
  return at;
}

/** Of `/proc/self/mountinfo` (man 5 proc): the mount with the longest path above `path`; of two on one path the later covers. */
export function mountOf(text: string, path: string): { fileSystem: string; options: string[] } | undefined {
  let best: { point: string; fileSystem: string; options: string[] } | undefined;
  for (const line of text.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const point = left
      .split(" ")[4]
      ?.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (point === undefined || (path !== point && !path.startsWith(point === "/" ? "/" : `${point}/`))) continue;
    const [fileSystem = "", , options = ""] = right.split(" ");
    if (best === undefined || point.length >= best.point.length)
      best = { point, fileSystem, options: options.split(",") };
  }
  return best;
}

/** Files in the state folder that hold keys. */
const SECRETS = ["identity.pem", "gpunode.db"];
/** All that the daemon puts there, with what SQLite and a rotation of the key add to a name. */
const OWN = /^(?:identity\.pem|gpunode\.db)(?:[-.].*)?$|^(?:logs|sigstore)$|^\.gpunode-/;

export const state: Reader<"state"> = {
  after: ["config"],
  limitMs: STAT_MS,
  read({ machine }, had) {
    const path = had("config")?.config.stateDir ?? "/var/lib/gpunode";
    const look = machine.look(path);
    const isOpen = (name: string) => ((machine.look(join(path, name))?.mode ?? 0) & 0o077) !== 0;
    return {
      path,
      ...(look !== undefined && { look }),
      openSecrets: SECRETS.filter(isOpen),
      isOwn: machine.names(path).every((name) => OWN.test(name)),
    };
  },
};

const SPEED_MS = 4_000;
const BLOCK_BYTES = 4 * MIB;
const BLOCKS = 4;
const SMALL_BYTES = 4096;
const SMALL_WRITES = 8;

export const diskSpeed: Reader<"diskSpeed"> = {
  after: ["system", "disk"],
  limitMs: SPEED_MS + 2_000,
  async read({ machine }, had, signal) {
    const { state: first, images } = had("disk") ?? {};
    // Where images lie, only root may write.
    const places = [...(had("system")?.isRoot === true ? [images] : []), first];
    const paths = places.flatMap((place) => place?.path ?? []);
    const path = paths.find((one) => machine.look(one)?.kind === "folder");
    if (path === undefined) return { missing: "the state folder is not there yet" };
    const free = (path === images?.path ? images : first)?.freeMiB ?? 0;
    if (free < 256) return { missing: "too little is free to write anything" };
    const where = machine.at(path);
    const folder = await mkdtemp(join(where, ".gpunode-doctor-")).catch(() => undefined);
    if (folder === undefined) return { missing: `this user may not write to ${path}: run it as root` };
    try {
      return { path, ...(await measure(join(folder, "speed"), signal)) };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

/** 16 MiB until the disk has them, then small writes one by one; a slow disk is given up on in between. */
async function measure(path: string, signal: AbortSignal): Promise<{ writeMiBps: number; syncMs: number }> {
  await using file = await open(path, "wx", 0o600);
  // Nothing that a file system could compress.
  const block = randomBytes(BLOCK_BYTES);
  const begun = performance.now();
  const isLate = () => signal.aborted || performance.now() - begun > SPEED_MS;
  let written = 0;
  for (let index = 0; index < BLOCKS && !(isLate() && written > 0); index += 1) {
    await file.write(block);
    await file.datasync();
    written += BLOCK_BYTES;
  }
  const writeMiBps = written / MIB / ((performance.now() - begun) / 1000);
  const small = block.subarray(0, SMALL_BYTES);
  const times: number[] = [];
  while (times.length < SMALL_WRITES && !(isLate() && times.length > 0)) {
    const before = performance.now();
    await file.write(small);
    await file.sync();
    times.push(performance.now() - before);
  }
  return { writeMiBps, syncMs: times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0 };
}
