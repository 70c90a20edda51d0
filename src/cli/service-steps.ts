import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { groupId, SERVICE_USER } from "./groups.ts";
import { packageRoot } from "./package-root.ts";
import { linkSteps } from "./start-link.ts";
import { note, run, type Step, systemdRuns } from "./steps.ts";

export const UNIT_PATH = "/etc/systemd/system/gpunode.service";
const CONFIG_PATH = "/etc/gpunode/config.toml";
/** Where "gpunode enroll" puts it, which may be run before there is a service. */
const TOKEN_PATH = "/etc/gpunode/join-token";

/** What a new configuration file holds: the two lines that most need, commented out. */
export const FIRST_CONFIG = `# docs/configuration.md lists every key; "gpunode config check" reads this file, "systemctl restart gpunode" applies it.

[coordinator]
# url = "wss://coordinator.example"
# join_token_file = "/etc/gpunode/join-token"

# [policy]                          # "gpunode config show" says what a workload may do here
# images = ["ghcr.io/me/*"]
# allow_root = true                 # many ready-made images want it; see docs/security.md
`;

/**
 * The steps that lead from this machine as it is to an installed service; none where nothing is left to do but starting
 * it. With `prefix` only files, under that folder.
 *
 * Throws where the service's user could not read this installation.
 */
export function installSteps(prefix: string | undefined): Step[] {
  const unitPath = join(prefix ?? "/", UNIT_PATH);
  const configPath = join(prefix ?? "/", CONFIG_PATH);
  const hasDocker = groupId("docker") !== undefined;
  const unit = unitFor({ node: process.execPath, entry: join(packageRoot(), "bin/gpunode.js"), hasDocker });
  const steps: Step[] = [];
  if (prefix === undefined) {
    requireReadable(process.execPath);
    requireReadable(packageRoot());
    if (groupId(SERVICE_USER) === undefined) steps.push(createUser());
    if (!hasDocker) steps.push(note("There is no group docker yet: run this again once Docker is installed."));
  }
  const before = existsSync(unitPath) ? readFileSync(unitPath, "utf8") : undefined;
  if (before !== unit) {
    steps.push({ says: `write ${unitPath}`, run: () => write(unitPath, unit, 0o644) });
  }
  if (!existsSync(configPath)) {
    steps.push({
      says: `write ${configPath} for you to fill in`,
      run() {
        write(configPath, FIRST_CONFIG, 0o640);
        // A join token may come to stand in it: root writes, the service reads, nobody else.
        if (prefix === undefined) chownSync(configPath, 0, groupId(SERVICE_USER) ?? 0);
      },
    });
  }
  steps.push(...linkSteps(prefix));
  if (prefix !== undefined) return steps;
  steps.push(...[configPath, TOKEN_PATH].filter(isClosedToService).map(letServiceRead));
  if (!systemdRuns()) return [...steps, note("systemd does not run here: the service is installed, but not started.")];
  return [
    ...steps,
    run("systemctl", "daemon-reload"),
    run("systemctl", "enable", "gpunode.service"),
    // Also takes a changed unit or a newer gpunode into use; the workloads live on.
    run("systemctl", "restart", "gpunode.service"),
    note('Done. "gpunode status" shows the node, "journalctl -u gpunode" its log.'),
  ];
}

/** The unit of this package, for this very Node and this very installation. */
export function unitFor({ node, entry, hasDocker }: { node: string; entry: string; hasDocker: boolean }): string {
  const template = unitTemplate();
  const command = `ExecStart=${quoted(node)} ${quoted(entry)} run`;
  const unit = template.replace(/^ExecStart=.*$/m, () => command);
  // systemd refuses to start a unit with a group that does not exist.
  return hasDocker ? unit : unit.replace(/^SupplementaryGroups=docker\n/m, "");
}

/** The unit as this package has it, before it is fitted to a machine. */
export function unitTemplate(): string {
  return readFileSync(join(packageRoot(), "systemd/gpunode.service"), "utf8");
}

/** As systemd.syntax(7) and the specifiers of systemd.unit(5) want it. */
function quoted(path: string): string {
  const escaped = path.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /[\s"'\\;]/.test(path) ? `"${escaped.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : escaped;
}

function createUser(): Step {
  const options = ["--system", "--user-group", "--home-dir", "/var/lib/gpunode", "--shell", "/usr/sbin/nologin"];
  return run("useradd", ...options, SERVICE_USER);
}

function write(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, text, { mode });
  chmodSync(path, mode);
}

/** It is there, and neither all nor the service's group may read it. */
function isClosedToService(path: string): boolean {
  if (!existsSync(path)) return false;
  const { mode, gid } = statSync(path);
  return (mode & 0o004) === 0 && (gid !== groupId(SERVICE_USER) || (mode & 0o040) === 0);
}

function letServiceRead(path: string): Step {
  return {
    says: `let the service read ${path}`,
    run() {
      chownSync(path, 0, groupId(SERVICE_USER) ?? 0);
      chmodSync(path, 0o640);
    },
  };
}

/** The service runs as a user of its own, and for it everything above `path` must be open. */
function requireReadable(path: string): void {
  for (let current = path; ; current = dirname(current)) {
    const { mode } = statSync(current);
    if ((mode & 0o001) === 0) {
      throw new Error(
        `the service's user could not read ${path}: ${current} is closed to others (mode 0${(mode & 0o777).toString(8)}). Move gpunode to a place such as /opt/gpunode, or open it with chmod o+x ${current}.`,
      );
    }
    if (dirname(current) === current) return;
  }
}
