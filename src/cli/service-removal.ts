import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { liveBridges } from "../isolation/bridge.ts";
import { REMOVE_TABLE, TABLE } from "../isolation/rules.ts";
import { SERVICE_USER } from "./groups.ts";
import { UNIT_PATH } from "./service-steps.ts";
import { unlinkSteps } from "./start-link.ts";
import { note, run, type Step, systemdRuns } from "./steps.ts";

/** Everything `service install` and the daemon make in their usual places. */
const FOLDERS = ["/etc/gpunode", "/var/lib/gpunode", "/run/gpunode", "/var/cache/gpunode", "/root/.cache/gpunode"];

/**
 * The steps back from `installSteps`; nothing is left to do where no unit is there. With `purge` also configuration, state, user and
 * caches go, after which the node is a new one.
 */
export function uninstallSteps(prefix: string | undefined, { purge }: { purge: boolean }): Step[] {
  const unitPath = join(prefix ?? "/", UNIT_PATH);
  const isInstalled = existsSync(unitPath);
  const missing = note(`There is no ${unitPath}: the service is not installed.`);
  if (!isInstalled && !purge) return [missing];
  const files: Step[] = isInstalled
    ? [{ says: `remove ${unitPath}`, run: () => rmSync(unitPath, { force: true }) }]
    : [missing];
  const folders = purge ? FOLDERS.map((folder) => removeFolder(join(prefix ?? "/", folder))) : [];
  if (prefix !== undefined) return [...files, ...unlinkSteps(prefix), ...folders];
  const hasUnit = isInstalled && systemdRuns();
  return [
    ...(hasUnit ? [run("systemctl", "disable", "--now", "gpunode.service")] : []),
    ...files,
    ...(hasUnit ? [run("systemctl", "daemon-reload")] : []),
    ...cleanupSteps({ caches: purge }),
    ...unlinkSteps(),
    ...folders,
    ...(purge ? removeUser() : [note(`Kept: /etc/gpunode, /var/lib/gpunode and the user ${SERVICE_USER}.`)]),
  ];
}

/** What a node that has ended leaves outside of its folders: at the engine, and in the packet filter. */
export function cleanupSteps({ caches }: { caches: boolean }): Step[] {
  const kinds = `containers, networks${caches ? ", caches" : ""} and the image of its probe`;
  return [
    { says: `remove what Docker keeps of this node: ${kinds}`, run: () => removeFromEngine(caches) },
    removeRules(),
  ];
}

async function removeFromEngine(caches: boolean): Promise<string> {
  const [{ removeTraces }, config] = await Promise.all([import("../agent.ts"), configInUse()]);
  try {
    const removed = await removeTraces(config, { caches });
    if (removed === undefined) return "There never was a node here.";
    const parts = Object.entries(removed).filter(([, count]) => count > 0);
    return parts.length === 0 ? "There was nothing." : parts.map(([kind, count]) => `${kind}: ${count}`).join(", ");
  } catch (error) {
    return `Left as it is: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** The installed configuration, or the usual places where it cannot be read. Throws where its daemon runs. */
async function configInUse() {
  const [{ loadConfig }, { connectLocal }, { socketPathIn }] = await Promise.all([
    import("../config/load.ts"),
    import("../local/client.ts"),
    import("../local/socket-path.ts"),
  ]);
  const usual = { stateDir: "/var/lib/gpunode", runDir: "/run/gpunode", docker: { socket: "/var/run/docker.sock" } };
  const config = await loadConfig({ env: process.env }).catch(() => usual);
  const isDown = await connectLocal(socketPathIn(config.runDir))
    .status()
    .then(
      () => false,
      (error: Error) => error.name === "DaemonNotRunning",
    );
  if (isDown) return config;
  throw new Error("gpunode runs here and needs what would be removed: stop it first (systemctl stop gpunode)");
}

/** The daemon takes its rules away when it ends, unless workloads live on; here they may have ended since. */
function removeRules(): Step {
  return {
    says: `remove the table ${TABLE} from nftables, where no workload runs any more`,
    run() {
      if (liveBridges().length > 0) return;
      const env = { ...process.env, PATH: `/usr/sbin:/sbin:${process.env.PATH ?? ""}` };
      try {
        execFileSync("nft", ["-f", "-"], { input: REMOVE_TABLE, env, stdio: ["pipe", "ignore", "ignore"] });
      } catch {
        // Without nft, or the right to use it, there never was a table.
      }
    },
  };
}

function removeFolder(path: string): Step {
  return { says: `remove ${path}`, run: () => rmSync(path, { recursive: true, force: true }) };
}

function removeUser(): Step[] {
  const isThere = (file: string) => new RegExp(`^${SERVICE_USER}:`, "m").test(readFileSync(file, "utf8"));
  if (!isThere("/etc/passwd")) return [];
  // Its group goes with it, unless somebody is a member.
  const group: Step = {
    says: `remove the group ${SERVICE_USER}`,
    run() {
      if (isThere("/etc/group")) execFileSync("groupdel", [SERVICE_USER], { stdio: ["ignore", "inherit", "inherit"] });
    },
  };
  return [run("userdel", SERVICE_USER), group];
}
