import { accessSync, constants, existsSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Resolution, resolveConfig } from "../../config/load.ts";
import type { FileOwner } from "../../config/replace-file.ts";
import { SYSTEM_FILE, usualFile } from "../../config/surroundings.ts";
import { groupId, SERVICE_USER } from "../groups.ts";

/** Whose configuration is written, and where. */
export interface Place {
  configFile: string;
  /** Beside it; the token never stands in the configuration itself. */
  tokenFile: string;
  /** As for `--config`: undefined where the daemon finds the file by itself. */
  named: string | undefined;
  /** The machine's own service reads it. */
  isService: boolean;
  /** What is in force by the file alone; the daemon's environment is not this shell's. */
  current: Resolution;
}

/**
 * Where this node's configuration lies: the file that is named, else the machine's, else the user's own. Throws `ConfigError` where what is there
 * is wrong, and an error with what to run where this user may not write it.
 */
export async function placeOf(
  { config, dryRun = false }: { config?: string; dryRun?: boolean },
  env: NodeJS.ProcessEnv = process.env,
): Promise<Place> {
  const chosen = config ?? (env.GPUNODE_CONFIG || undefined);
  const wanted = resolve(chosen ?? usualFile(env));
  // What is replaced is the file itself, not a link to it.
  const configFile = existsSync(wanted) ? realpathSync(wanted) : wanted;
  if (!dryRun) requireWritable(configFile);
  const current = await resolveConfig({
    env: withoutOurs(env),
    // One that is not there yet has nothing but defaults.
    ...(existsSync(configFile) && { file: configFile }),
  });
  return {
    configFile,
    tokenFile: join(dirname(wanted), "join-token"),
    named: wanted === usualFile(env) ? undefined : wanted,
    isService: wanted === SYSTEM_FILE,
    current,
  };
}

export interface Owners {
  config: FileOwner;
  token: FileOwner;
  /** The configuration is there, and the service may not read it. */
  isClosed: boolean;
}

/** Who may read the files: the service's group where there is one, else their writer alone. */
export function ownersOf({ isService, configFile }: Place): Owners {
  const gid = isService ? groupId(SERVICE_USER) : undefined;
  const fresh: FileOwner = gid === undefined ? { mode: 0o600 } : { mode: 0o640, uid: 0, gid };
  if (!existsSync(configFile)) return { config: fresh, token: fresh, isClosed: false };
  const { mode, uid, gid: group } = statSync(configFile);
  const isReadable = gid === undefined || (mode & 0o004) !== 0 || (group === gid && (mode & 0o040) !== 0);
  const kept = { mode: mode & 0o777, uid, gid: group };
  return { config: isReadable ? kept : fresh, token: fresh, isClosed: !isReadable };
}

/** Throws where a file that the service has to read is closed to its user. */
export function requireReadableByService(path: string): void {
  const gid = groupId(SERVICE_USER);
  if (gid === undefined || !existsSync(path)) return;
  const isOpen = (of: string, bit: 0o4 | 0o1) => {
    const { mode, gid: group } = statSync(of);
    return (mode & bit) !== 0 || (group === gid && (mode & (bit << 3)) !== 0);
  };
  const folders: string[] = [];
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) folders.push(folder);
  const closed = isOpen(path, 0o4) ? folders.find((folder) => !isOpen(folder, 0o1)) : path;
  if (closed === undefined) return;
  throw new Error(
    `the service's user ${SERVICE_USER} could not read ${path}: ${closed} is closed to it; put a copy into /etc/gpunode that all may read`,
  );
}

function requireWritable(file: string): void {
  let folder = dirname(file);
  while (!existsSync(folder)) folder = dirname(folder);
  try {
    // The file is replaced, so it is the folder that counts.
    accessSync(folder, constants.W_OK);
  } catch (error) {
    const how = process.getuid?.() === 0 ? "is it on a read-only file system?" : 'run "sudo gpunode enroll"';
    throw new Error(`${file} cannot be written by this user: ${how}`, { cause: error });
  }
}

/** The environment without the keys it sets: `GPUNODE_…` of this shell are not the service's. */
function withoutOurs(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("GPUNODE_")));
}
