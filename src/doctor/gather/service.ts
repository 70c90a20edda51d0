import { connectLocal, DaemonNotRunning } from "../../local/client.ts";
import { socketPathIn } from "../../local/socket-path.ts";
import type { DaemonFacts, ServiceFacts, User } from "../facts.ts";
import type { Machine } from "../machine.ts";
import { groupId, userOf } from "../users.ts";
import { keyValues } from "./host.ts";
import type { Doors, Reader } from "./reader.ts";

const UNIT = "gpunode.service";
/** Where units are looked for, first the owner's; systemd.unit(5). */
const UNIT_FOLDERS = [
  "/etc/systemd/system",
  "/run/systemd/system",
  "/usr/local/lib/systemd/system",
  "/usr/lib/systemd/system",
  "/lib/systemd/system",
];
const PROPERTIES = [
  ...["UnitFileState", "ActiveState", "Result", "NRestarts", "NeedDaemonReload"],
  ...["User", "SupplementaryGroups", "AmbientCapabilities"],
];
const SYSTEMCTL_MS = 3_000;
const DAEMON_MS = 4_000;

export const service: Reader<"service"> = {
  limitMs: SYSTEMCTL_MS + 1_000,
  async read({ machine, expectedUnit }, _had, signal): Promise<ServiceFacts> {
    const path = UNIT_FOLDERS.map((folder) => `${folder}/${UNIT}`).find((at) => machine.text(at) !== undefined);
    const text = path === undefined ? undefined : machine.text(path);
    if (path === undefined || text === undefined) return { user: whoAsks(machine) };
    const argv = ["systemctl", "show", UNIT, `--property=${PROPERTIES.join(",")}`];
    const ran = await machine.run(argv, { timeoutMs: SYSTEMCTL_MS, signal });
    const told = keyValues("code" in ran && ran.code === 0 ? ran.stdout : "");
    // With what was dropped in, where systemd can be asked.
    const settings = told.has("User") ? told : keyValues(text);
    const say = (name: string) => told.get(name) || undefined;
    const [fileState, activeState, result] = ["UnitFileState", "ActiveState", "Result"].map(say);
    return {
      user: userOfUnit(machine, settings) ?? whoAsks(machine),
      unit: {
        ...(fileState !== undefined && { fileState }),
        ...(activeState !== undefined && { activeState }),
        ...(result !== undefined && { result }),
        ...(told.has("NRestarts") && { restarts: Number(told.get("NRestarts")) }),
        ...(told.has("NeedDaemonReload") && { needsReload: told.get("NeedDaemonReload") === "yes" }),
        capabilities: words(settings.get("AmbientCapabilities")).map((name) => name.toUpperCase()),
        // What a package brings is the package's business.
        isCurrent: expectedUnit === undefined || !path.startsWith("/etc/") || isAlike(text, expectedUnit),
      },
    };
  },
};

function userOfUnit(machine: Machine, settings: ReadonlyMap<string, string>): User | undefined {
  const user = userOf(machine, settings.get("User") ?? "root");
  const extra = (settings.get("SupplementaryGroups") ?? "")
    .split(/\s+/)
    .flatMap((name) => groupId(machine, name) ?? []);
  return user && { ...user, gids: [...new Set([...user.gids, ...extra])] };
}

function words(list = ""): string[] {
  return list.split(/\s+/).filter((word) => word !== "");
}

function whoAsks(machine: Machine): User {
  const uid = process.geteuid?.() ?? 0;
  const gids = [process.getegid?.() ?? 0, ...(process.getgroups?.() ?? [])];
  return { name: userOf(machine, uid)?.name ?? String(uid), uid, gids };
}

/** But for what differs from machine to machine. */
function isAlike(unit: string, expected: string): boolean {
  const bare = (text: string) =>
    text
      .split("\n")
      .filter((line) => /^\[|^[A-Z]\w*=/.test(line) && !/^(?:ExecStart|SupplementaryGroups)=/.test(line))
      .join("\n");
  return bare(unit) === bare(expected);
}

export const daemon: Reader<"daemon"> = {
  after: ["config"],
  limitMs: DAEMON_MS + 500,
  async read({ machine }: Doors, had, signal): Promise<DaemonFacts> {
    const runDir = had("config")?.config.runDir ?? "/run/gpunode";
    const limit = AbortSignal.any([signal, AbortSignal.timeout(DAEMON_MS)]);
    try {
      const snapshot = await connectLocal(machine.at(socketPathIn(runDir))).status({ signal: limit });
      const points = Number(machine.text(`/proc/${snapshot.node.pid}/oom_score_adj`) ?? Number.NaN);
      return { state: "running", snapshot, ...(Number.isFinite(points) && { oomScoreAdj: points }) };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (limit.aborted) return { state: "silent", message: `the daemon does not answer within ${DAEMON_MS / 1000} s` };
      if (!(error instanceof DaemonNotRunning)) return { state: "silent", message };
      const code = (error.cause as NodeJS.ErrnoException | undefined)?.code;
      return { state: code === "EACCES" || code === "EPERM" ? "closed" : "away", message };
    }
  },
};
