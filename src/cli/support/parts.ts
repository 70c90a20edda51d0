import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Resolution } from "../../config/load.ts";
import { peekIntoState, type StateSeen } from "../../store/peek.ts";
import { gpunodeVersion } from "../version.ts";
import { answered, printed, type Said } from "./external.ts";
import { hostParts } from "./host-parts.ts";
import { json, type Part } from "./part.ts";
import type { Redactor } from "./redactor.ts";
import { VARIABLE, variablesIn, withoutTenantsWords } from "./workload-words.ts";

const UNIT = "gpunode.service";
const JOURNAL_LINES = 2000;
const EVENTS = 500;
/** A full look at a machine, programs of it included. */
const DOCTOR_TIMEOUT_MS = 120_000;

export interface PartsOptions {
  /** The configuration in force; where it cannot be read, why. */
  resolution: Resolution | Error;
  /** As given with `--config`. */
  file: string | undefined;
  redactor: Redactor;
  signal: AbortSignal;
}

/** What a bundle is made of: the secrets that are known by their values, and the files, in the order of the manifest. */
export interface Contents {
  /** Tells the redactor what it has to know before anything is collected. */
  learnSecrets(): Promise<void>;
  parts: Part[];
}

export function contentsOf(options: PartsOptions): Contents {
  const { resolution, file, signal } = options;
  const config = resolution instanceof Error ? undefined : resolution.config;
  const stateDir = config?.stateDir ?? "/var/lib/gpunode";
  const smi = config?.nvidia.smi ?? "nvidia-smi";
  const docker = config?.docker.socket ?? "/var/run/docker.sock";
  const own = [...(file === undefined ? [] : ["--config", file])];
  const state = stateIn(stateDir);
  const program = (
    name: string,
    command: string,
    args: readonly string[],
    from = [command, ...args].join(" "),
  ): Part => ({
    file: name,
    from,
    make: () => printed(command, args, { isStdoutOnly: /\.(?:json|xml)$/.test(name), signal }),
  });
  const question = (name: string, path: string): Part => ({
    file: name,
    from: `GET ${path} of ${docker}`,
    make: () => questionSaid(docker, path, signal),
  });
  const self = (...args: string[]) => [...process.execArgv, process.argv[1] ?? "", ...args, ...own];
  const parts: Part[] = [
    { file: "version.json", from: "this gpunode", make: () => ({ text: json(versions()) }) },
    { file: "config.json", from: "gpunode config show --json", make: () => configSaid(resolution) },
    program("status.json", process.execPath, self("status", "--json"), "gpunode status --json"),
    program("gpus.json", process.execPath, self("gpus", "--json"), "gpunode gpus --json"),
    { file: "doctor.json", from: "gpunode doctor --json", make: () => doctorSaid(self("doctor", "--json"), signal) },
    program("nvidia-smi.xml", smi, ["-q", "-x"]),
    program("nvidia-smi-topology.txt", smi, ["topo", "-m"]),
    question("docker-info.json", "/info"),
    question("docker-version.json", "/version"),
    {
      file: "docker-containers.json",
      from: `GET /containers/json of ${docker}`,
      make: () => containersSaid(docker, signal),
    },
    { file: "workloads.json", from: join(stateDir, "gpunode.db"), make: (count) => recordsSaid(state(), count) },
    { file: "events.json", from: join(stateDir, "gpunode.db"), make: (count) => eventsSaid(state(), count) },
    program("journal.txt", "journalctl", [
      `--unit=${UNIT}`,
      `--lines=${JOURNAL_LINES}`,
      "--output=short-iso",
      "--no-pager",
    ]),
    program("service-status.txt", "systemctl", ["status", "--no-pager", "--full", "--lines=0", UNIT]),
    {
      file: "service-unit.txt",
      from: `systemctl cat ${UNIT}`,
      make: (count) => unitSaid(["cat", "--no-pager", UNIT], count, signal),
    },
    {
      file: "service-properties.txt",
      from: `systemctl show ${UNIT}`,
      make: (count) => unitSaid(["show", "--no-pager", UNIT], count, signal),
    },
    ...hostParts({ stateDir, kernelLog: config?.nvidia.kernelLog, signal }),
  ];
  return { parts, learnSecrets: () => learnSecrets(options, state) };
}

/** The daemon's database as it is now, looked into once. */
function stateIn(stateDir: string): () => StateSeen {
  const path = join(stateDir, "gpunode.db");
  let seen: StateSeen | Error | undefined;
  return () => {
    try {
      seen ??= peekIntoState(path, { events: EVENTS });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const why =
        code === "ENOENT"
          ? "there is none: gpunode has not run here"
          : code === "EACCES"
            ? "this user may not read it"
            : message;
      seen = new Error(`${path}: ${why}`);
    }
    if (seen instanceof Error) throw seen;
    return seen;
  };
}

/** Each that cannot be read here is none that could be told. */
async function learnSecrets({ resolution, redactor, signal }: PartsOptions, state: () => StateSeen): Promise<void> {
  const learn = (kind: string, read: () => string | undefined) => {
    try {
      redactor.know(kind, read());
    } catch {
      // Not readable by us, so no part of what we can collect.
    }
  };
  for (const [name, value] of Object.entries(process.env)) {
    if (/TOKEN|PASSWORD|SECRET|PROXY/i.test(name)) redactor.know("secret of the environment", value);
  }
  const environment = await printed("systemctl", ["show", "--property=Environment", "--value", UNIT], { signal });
  for (const [, name = "", value = ""] of environment.text.matchAll(/(?:^|\s)"?([A-Z_][A-Z0-9_]*)=([^\s"]+)/g)) {
    if (/TOKEN|PASSWORD|SECRET|PROXY/.test(name)) redactor.know("secret of the environment", value);
  }
  if (resolution instanceof Error) return;
  const { coordinator, stateDir } = resolution.config;
  redactor.know("join token", coordinator.joinToken?.reveal());
  const { joinTokenFile, proxy } = coordinator;
  if (joinTokenFile !== undefined) learn("join token", () => readFileSync(joinTokenFile, "utf8").trim());
  const login = proxy === undefined ? undefined : new URL(proxy.reveal());
  learn("password of the proxy", () => decodeURIComponent(login?.password ?? ""));
  redactor.know("password of the proxy", login?.password);
  for (const name of ["identity.pem", "identity.pem.next"]) {
    learn(
      "private key",
      () =>
        /-----BEGIN[^-]*-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END/.exec(readFileSync(join(stateDir, name), "utf8"))?.[1],
    );
  }
  try {
    const values = new Set(
      state()
        .records.flatMap(({ body }) => variablesIn(body))
        .filter(isTelling),
    );
    for (const value of [...values].slice(0, MOST_VARIABLES)) redactor.know(VARIABLE, value);
  } catch {
    // Said where the records are collected.
  }
}

/** Values of variables that are words, numbers or paths stand in every other sentence, and tell nothing. */
function isTelling(value: string): boolean {
  return value.length >= 8 && !/^(?:[a-z-]{1,15}|[A-Z_-]{1,15}|[\d.:]+|\/.*)$/.test(value);
}

/** So many are looked for elsewhere; all are hidden in the records themselves. */
const MOST_VARIABLES = 100;

function versions() {
  const { node, v8, openssl } = process.versions;
  return { gpunode: gpunodeVersion(), node, v8, openssl, architecture: process.arch, platform: process.platform };
}

async function configSaid(resolution: Resolution | Error): Promise<Said> {
  if (resolution instanceof Error) return { text: "", problem: resolution.message };
  const { settings, file, warnings } = resolution;
  // Secrets write themselves as hidden.
  return {
    text: json({
      file,
      settings,
      warnings,
    }),
  };
}

/** Not every build has a doctor. */
async function doctorSaid(args: readonly string[], signal: AbortSignal): Promise<Said> {
  const said = await printed(process.execPath, args, { signal, timeoutMs: DOCTOR_TIMEOUT_MS, isStdoutOnly: true });
  if (said.problem?.includes("unknown command") === true) return { text: "", problem: "this gpunode has no doctor" };
  // What it finds wrong it tells by its exit code, too.
  return said.text.trimStart().startsWith("{") || said.text.trimStart().startsWith("[") ? { text: said.text } : said;
}

async function questionSaid(socket: string, path: string, signal: AbortSignal): Promise<Said> {
  const said = await answered(socket, path, { signal });
  return said.problem === undefined ? { text: json(JSON.parse(said.text)) } : said;
}

/** Of each of gpunode's containers what it is and how it goes; no command line, no environment. */
async function containersSaid(socket: string, signal: AbortSignal): Promise<Said> {
  const filters = encodeURIComponent(JSON.stringify({ label: ["org.gpunode.node"] }));
  const said = await answered(socket, `/containers/json?all=true&filters=${filters}`, { signal });
  if (said.problem !== undefined) return said;
  const shown = (JSON.parse(said.text) as Record<string, unknown>[]).map(
    ({ Id, Names, Image, State, Status, Created, Ports, Labels }) => {
      const labels = Object.entries((Labels ?? {}) as object).filter(([name]) => name.startsWith("org.gpunode."));
      return { Id, Names, Image, State, Status, Created, Ports, Labels: Object.fromEntries(labels) };
    },
  );
  return { text: json(shown) };
}

type Count = (kind: string, times: number) => void;

function recordsSaid({ schema, records, settings, usageRecords }: StateSeen, count: Count): Said {
  return { text: json({ schema, records: withoutTenantsWords(records, count), settings, usageRecords }) };
}

function eventsSaid({ events, position }: StateSeen, count: Count): Said {
  return {
    text: json({
      position,
      note: "events that a coordinator has are no longer here",
      events: withoutTenantsWords(events, count),
    }),
  };
}

/** The unit's variables by their names alone. */
async function unitSaid(args: readonly string[], count: Count, signal: AbortSignal): Promise<Said> {
  const said = await printed("systemctl", args, { signal });
  const text = said.text.replace(
    /^(\s*(?:Environment|PassEnvironment|SetCredential(?:Encrypted)?)=)(.*)$/gm,
    (_line, key: string, rest: string) => {
      let times = 0;
      const shown = rest.replace(
        /([A-Za-z_][\w.-]*)([=:])("[^"]*"|'[^']*'|[^\s"']*)/g,
        (_pair, name: string, between: string) => {
          times += 1;
          return `${name}${between}[hidden]`;
        },
      );
      count("variable of the service", times);
      return key + shown;
    },
  );
  return { ...said, text };
}
