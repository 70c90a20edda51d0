import { runDirOf } from "../config/load.ts";
import { connectLocal, type LocalClient } from "../local/client.ts";
import { socketPathIn } from "../local/socket-path.ts";

/** The daemon the configuration points to; `file` as the user named it. Throws `ConfigError`. */
export async function findDaemon(file: string | undefined): Promise<LocalClient> {
  const runDir = await runDirOf({ env: process.env, ...(file !== undefined && { file }) });
  return connectLocal(socketPathIn(runDir));
}
