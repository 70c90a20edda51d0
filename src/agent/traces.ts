import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { type Removed, removeLeftBehind } from "../engine/left-behind.ts";
import { loadIdentity } from "../link/identity.ts";
import { LABEL_NODE } from "../workload/needs.ts";

/** In the state directory: the label of this node's volumes, for the purge of a package whose programs are gone by then. */
const LABEL_FILE = "docker-label";

/** Places of the configuration that tell where a node's traces are. */
export type TracesConfig = { stateDir: Config["stateDir"]; docker: Pick<Config["docker"], "socket"> };

/**
 * Takes away what the node of this state directory has left at the engine, its caches too if `caches`; what caches stay is found later by
 * the label in `docker-label`. The daemon must have ended. Returns what was taken away; undefined where there never was a node.
 *
 * Throws `engine_unavailable` where there is no engine.
 */
export async function removeTraces(
  { stateDir, docker }: TracesConfig,
  { caches }: { caches: boolean },
): Promise<Removed | undefined> {
  const keyFile = join(stateDir, "identity.pem");
  // Reading it would make one.
  if (!existsSync(keyFile)) return undefined;
  const { firstNodeId: nodeId } = loadIdentity(keyFile);
  const labelFile = join(stateDir, LABEL_FILE);
  rmSync(labelFile, { force: true });
  // Never through a link: the folder is the daemon's.
  if (!caches) writeFileSync(labelFile, `${LABEL_NODE}=${nodeId}\n`, { mode: 0o600, flag: "wx" });
  return await removeLeftBehind({ socketPath: docker.socket, nodeId, caches });
}
