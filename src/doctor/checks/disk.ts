import { advice, type Check, check, command, failure, ok, type Step, skipped, warning } from "../check.ts";
import type { Volume } from "../facts.ts";
import { mayUse } from "../users.ts";
import { list, size } from "../words.ts";

/** An image of a machine-learning framework is 5 to 10 GiB, and twice that while it is unpacked. */
const IMAGES_LEAST_MIB = 20 * 1024;
/** The node's own state: a few megabytes, and the logs of its workloads. */
const STATE_LEAST_MIB = 512;
const INODES_LEAST_PERCENT = 2;
/** 10 GiB of an image then take three and a half minutes to write. */
const WRITE_LEAST_MIBPS = 50;
/** Each change of a workload is on the disk before anybody is told. */
const SYNC_MOST_MS = 50;

/** Where images and state lie. */
export const DISK_CHECKS: readonly Check[] = [
  check({
    id: "disk-space",
    title: "There is room for images and state",
    looks: "free space and inodes where the engine keeps images, and where the node keeps its state",
    why: "a full disk fails pulls and running work; the node then takes nothing new",
    mends: "remove images nobody needs, or put the engine's data on a larger disk",
    needs: ["disk", "config"],
    judge({ disk: { images, state }, config: { config } }) {
      if (images === undefined && state === undefined)
        return skipped("neither the engine nor a state folder tells where they lie");
      const reserveMiB = config.policy.reserve.diskMiB;
      const problems: { words: string; isBad: boolean }[] = [];
      if (images !== undefined) {
        const free = `${size(images.freeMiB)} of ${size(images.totalMiB)} are free at ${images.path}`;
        if (images.freeMiB <= reserveMiB)
          problems.push({ words: `${free}, and policy.reserve.disk_mib keeps ${size(reserveMiB)} back`, isBad: true });
        else if (images.freeMiB - reserveMiB < IMAGES_LEAST_MIB)
          problems.push({ words: `${free}, where images lie`, isBad: images.freeMiB < 1024 });
      }
      if (state !== undefined && state.freeMiB < STATE_LEAST_MIB) {
        problems.push({ words: `${size(state.freeMiB)} are free at ${state.path}, for the node's state`, isBad: true });
      }
      for (const { path, freeInodesPercent = 100 } of [images, state].filter(isThere)) {
        if (freeInodesPercent < INODES_LEAST_PERCENT)
          problems.push({ words: `nearly no inodes are left at ${path}`, isBad: true });
      }
      if (problems.length === 0) {
        const places = [images, state].filter(isThere).map(({ path, freeMiB }) => `${size(freeMiB)} at ${path}`);
        return ok(`free: ${list([...new Set(places)])}`);
      }
      const steps: Step[] = [
        command("docker", "system", "df"),
        advice('"docker image prune --all" removes every image that no container uses'),
        advice('or put Docker\'s data on a larger disk: "data-root" in /etc/docker/daemon.json'),
      ];
      return (problems.some(({ isBad }) => isBad) ? failure : warning)(
        problems.map(({ words }) => words).join("; "),
        steps,
      );
    },
  }),
  check({
    id: "disk-speed",
    title: "The disk is fast enough",
    looks:
      "16 MiB written until the disk has them, and a few small writes one by one, in a folder that is removed again",
    why: "images take minutes longer, and each change of a workload waits for the disk",
    mends: "put the engine's data and the node's state on an SSD",
    needs: ["diskSpeed"],
    judge({ diskSpeed: { path, writeMiBps, syncMs } }) {
      const found = `${Math.round(writeMiBps)} MiB/s at ${path}, ${syncMs < 10 ? syncMs.toFixed(1) : Math.round(syncMs)} ms for a small write`;
      if (writeMiBps >= WRITE_LEAST_MIBPS && syncMs <= SYNC_MOST_MS) return ok(found);
      return warning(found, [
        advice(`put it on an SSD: "data-root" in /etc/docker/daemon.json, "state_dir" in gpunode's configuration`),
      ]);
    },
  }),
  check({
    id: "state-dir",
    title: "The node's state is the daemon's, and closed to others",
    looks: "owner and mode of `state_dir`, and of the key and the database in it",
    why: "a daemon that may not write there does not start; whoever reads the key can pass for this node",
    mends: "`chown` and `chmod`",
    needs: ["state", "service"],
    judge({ state: { path, look, openSecrets, isOwn }, service: { user } }) {
      // A folder of somebody's own that state_dir names by mistake is not given away, nor closed.
      const auto = isOwn ? "safe" : undefined;
      if (look === undefined) return ok(`${path} is made at the first start`);
      if (look.kind !== "folder")
        return failure(`${path} is no folder`, [advice(`move ${path} away, or set state_dir`)]);
      const isOwner = look.uid === user.uid;
      if (!isOwner && !mayUse(user, look, "write")) {
        return failure(
          `${path} belongs to uid ${look.uid}, and the daemon runs as ${user.name} (${user.uid})`,
          [command("chown", "-R", `${user.name}:`, path)],
          auto,
        );
      }
      const isOpen = (look.mode & 0o077) !== 0;
      if (!isOpen && openSecrets.length === 0) return ok(`${path} is ${user.name}'s alone`);
      const files = openSecrets.map((name) => `${path}/${name}`);
      const steps = [
        ...(isOpen ? [command("chmod", "0700", path)] : []),
        ...(files.length > 0 ? [command("chmod", "0600", ...files)] : []),
      ];
      const mode = (look.mode & 0o777).toString(8).padStart(4, "0");
      const found = [
        ...(isOpen ? [`${path} has mode ${mode}`] : []),
        ...(files.length > 0 ? [`others may read ${list(files)}`] : []),
      ];
      return (isOpen && files.length > 0 ? failure : warning)(list(found), steps, auto);
    },
  }),
];

function isThere(volume: Volume | undefined): volume is Volume {
  return volume !== undefined;
}
