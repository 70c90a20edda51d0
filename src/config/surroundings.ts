import { existsSync, readlinkSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Where the configuration is looked for when nobody names a file. */
export const SYSTEM_FILE = "/etc/gpunode/config.toml";

/** What defaults depend on. */
export interface Surroundings {
  env: NodeJS.ProcessEnv;
  /** A user's own try, not the machine's service: neither root nor a file in /etc. */
  personal: boolean;
}

export function surroundingsOf(env: NodeJS.ProcessEnv): Surroundings {
  return { env, personal: process.getuid?.() !== 0 && !existsSync(SYSTEM_FILE) };
}

/** A user's own configuration, by the XDG base directory specification. */
export function personalFile(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), ".config"), "gpunode/config.toml");
}

/** The file that counts where nobody names one: the machine's, else the user's own. It need not be there. */
export function usualFile(env: NodeJS.ProcessEnv): string {
  return surroundingsOf(env).personal ? personalFile(env) : SYSTEM_FILE;
}

type Dir = string | { value: string; source: string };

/** systemd's StateDirectory= where there is one, else the machine's or the user's own folder. */
export function systemStateDir({ env, personal }: Surroundings): Dir {
  const fromSystemd = firstOf(env.STATE_DIRECTORY);
  if (fromSystemd !== undefined) return { value: fromSystemd, source: "systemd (STATE_DIRECTORY)" };
  return personal ? personalDir(env) : "/var/lib/gpunode";
}

/** systemd's RuntimeDirectory= where there is one, else the machine's or the user's own folder. */
export function systemRunDir({ env, personal }: Surroundings): Dir {
  const fromSystemd = firstOf(env.RUNTIME_DIRECTORY);
  if (fromSystemd !== undefined) return { value: fromSystemd, source: "systemd (RUNTIME_DIRECTORY)" };
  if (!personal) return "/run/gpunode";
  // Not a folder in /tmp: others could have made it before us.
  return env.XDG_RUNTIME_DIR ? join(env.XDG_RUNTIME_DIR, "gpunode") : join(personalDir(env), "run");
}

/** The XDG base directory specification's place for state. */
function personalDir(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_STATE_HOME || join(env.HOME || homedir(), ".local/state"), "gpunode");
}

/** systemd separates several folders with colons. */
function firstOf(list: string | undefined): string | undefined {
  return list?.split(":").find((entry) => entry !== "");
}

/**
 * The machine's time zone by its IANA name, as localtime(5) says it: the folder /etc/localtime links into names it, and UTC where
 * there is no such file. ICU is asked only where that does not tell: to load it costs a command a third of its time, and a daemon 6 MiB.
 */
export function systemTimeZone(env: NodeJS.ProcessEnv, localtime = "/etc/localtime"): string {
  const fromIcu = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (env.TZ !== undefined) return fromIcu();
  try {
    const zone = /\/zoneinfo\/(?:posix\/|right\/)?([A-Za-z][\w+/-]*)$/.exec(readlinkSync(localtime))?.[1];
    // So ICU calls it too.
    return zone === "Etc/UTC" ? "UTC" : (zone ?? fromIcu());
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? "UTC" : fromIcu();
  }
}
