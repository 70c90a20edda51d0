import { existsSync, statSync } from "node:fs";
import { Secret } from "../protocol/secret.ts";
import { type Config, configOf } from "./config.ts";
import { type FileContents, readConfigFile } from "./file.ts";
import type { Key } from "./key.ts";
import { envNameOf, KEY_NAMES, KEYS, type KeyName, type Values } from "./keys.ts";
import { linesOfKeys } from "./lines.ts";
import { nearest } from "./nearest.ts";
import { ConfigError } from "./problem.ts";
import { type Surroundings, surroundingsOf, usualFile } from "./surroundings.ts";
import { longestStretchMinutes } from "./windows.ts";

export interface LoadOptions {
  /** Named by the user, so it must exist; otherwise `GPUNODE_CONFIG`, then the machine's or the user's own where there is one. */
  file?: string;
  env: NodeJS.ProcessEnv;
  /** What was given on the command line, as text; `true` for a flag without a value. */
  flags?: { [K in KeyName]?: string | boolean };
}

/** A key with its value in force and the place it was set: `default`, `FILE`, `GPUNODE_…`, `--flag`. */
export interface Setting {
  key: KeyName;
  value: Values[KeyName];
  source: string;
}

export interface Resolution {
  config: Config;
  settings: Setting[];
  /** The file that was read, if any. */
  file?: string;
  /** Sentences about what was ignored: environment variables that look like ours and are not. */
  warnings: string[];
}

/** Flag over environment over file over default. Throws `ConfigError` with one line for each problem. */
export async function loadConfig(options: LoadOptions): Promise<Config> {
  return (await resolveConfig(options)).config;
}

/**
 * Where the daemon is to be found. The machine's configuration may hold a token and be closed to most users; who may use
 * the daemon is decided by its socket, so they look for it in the usual place.
 */
export async function runDirOf(options: LoadOptions): Promise<string> {
  try {
    return (await loadConfig(options)).runDir;
  } catch (error) {
    const closed =
      error instanceof ConfigError && (error.cause as NodeJS.ErrnoException | undefined)?.code === "EACCES";
    if (!closed || options.file !== undefined || options.env.GPUNODE_CONFIG) throw error;
    return options.env[envNameOf("run_dir")] || "/run/gpunode";
  }
}

/** Like `loadConfig`, with where each value came from. */
export async function resolveConfig({ file: named, env, flags = {} }: LoadOptions): Promise<Resolution> {
  const usual = usualFile(env);
  const file = named ?? (env.GPUNODE_CONFIG || (existsSync(usual) ? usual : undefined));
  const contents = file === undefined ? undefined : readConfigFile(file);
  const surroundings = surroundingsOf(env);
  const faults: Fault[] = (contents?.unknown ?? []).map(({ name, problem }) => ({ inFile: name, problem }));
  const settings = KEY_NAMES.map((key) => settle(key, { file, contents, env, flags, surroundings, faults }));
  const values = Object.fromEntries(settings.map(({ key, value }) => [key, value])) as Values;
  if (faults.length === 0) faults.push(...contradictions(values, settings, file));
  if (faults.length > 0) throw new ConfigError(await located(faults, file, contents));
  return {
    config: configOf(values),
    settings,
    warnings: [...foreignVariables(env), ...exposedToken(settings, file)],
    ...(file !== undefined && { file }),
  };
}

/** Every value as it is where nothing is set. */
export function defaultConfig(env: NodeJS.ProcessEnv): Config {
  const surroundings = surroundingsOf(env);
  const settings = KEY_NAMES.map((key) => fallbackOf(key, KEYS[key] as Key<unknown>, surroundings));
  return configOf(Object.fromEntries(settings.map(({ key, value }) => [key, value])) as Values);
}

/** Something wrong, either with a key of the file or with what stands in `problem` complete. */
interface Fault {
  inFile?: string;
  problem: string;
}

interface Sources {
  file: string | undefined;
  contents: FileContents | undefined;
  env: NodeJS.ProcessEnv;
  flags: { [K in KeyName]?: string | boolean };
  surroundings: Surroundings;
  faults: Fault[];
}

function settle(key: KeyName, sources: Sources): Setting {
  const definition: Key<unknown> = KEYS[key];
  const { kind } = definition;
  const envName = envNameOf(key);
  const flag = definition.flag?.split(" ")[0];
  const fromFlag = sources.flags[key];
  const fromEnv = sources.env[envName];
  const given = [
    { source: flag ?? key, raw: typeof fromFlag === "string" ? kind.fromText(fromFlag) : fromFlag },
    // Set to nothing is how shells and unit files say "not set".
    { source: envName, raw: fromEnv === undefined || fromEnv === "" ? undefined : kind.fromText(fromEnv) },
    { source: sources.file ?? "", raw: sources.contents?.values.get(key) },
  ];
  let setting: Setting | undefined;
  for (const { source, raw } of given) {
    if (raw === undefined) continue;
    const reading = kind.read(raw);
    if (reading.ok) setting ??= { key, value: reading.value as Values[KeyName], source };
    else {
      const shown = kind.secret ? "the value" : withoutCredentials(JSON.stringify(raw));
      const inFile = source === sources.file;
      const subject = inFile ? `${key} = ${shown}` : `${source}: ${shown}`;
      sources.faults.push({ ...(inFile && { inFile: key }), problem: `${subject}: expected ${reading.expected}` });
    }
  }
  return setting ?? fallbackOf(key, definition, sources.surroundings);
}

/** Without what stands in an address before "@" or after "?": people put passwords and tokens there, also where they do not belong. */
function withoutCredentials(text: string): string {
  return text.replace(/(:\/\/)[^\s"]*@/g, "$1…@").replace(/(:\/\/[^\s"?#]*)[?#][^\s"]*/g, "$1?…");
}

function fallbackOf(key: KeyName, definition: Key<unknown>, surroundings: Surroundings): Setting {
  const found = definition.fallback?.(surroundings);
  if (typeof found === "object" && found !== null && "source" in found && "value" in found) {
    return { key, value: found.value as Values[KeyName], source: String(found.source) };
  }
  return { key, value: found as Values[KeyName], source: "default" };
}

/** Values that are right one by one but not together. */
function contradictions(values: Values, settings: readonly Setting[], file: string | undefined): Fault[] {
  const faults: Fault[] = [];
  const about = (key: KeyName, problem: string) => {
    const source = settings.find((setting) => setting.key === key)?.source;
    faults.push(
      source === file && file !== undefined ? { inFile: key, problem } : { problem: `${source}: ${problem}` },
    );
  };
  const url = values["coordinator.url"];
  if (url?.startsWith("ws://") === true && !values["coordinator.insecure"] && !isLoopback(new URL(url).hostname)) {
    about("coordinator.url", `${url} is not encrypted: use wss://, or allow it with coordinator.insecure = true`);
  }
  if (values["coordinator.join_token"] !== undefined && values["coordinator.join_token_file"] !== undefined) {
    about("coordinator.join_token", "give either coordinator.join_token or coordinator.join_token_file, not both");
  }
  const pair = [values["coordinator.cert_file"], values["coordinator.key_file"]];
  if ((pair[0] === undefined) !== (pair[1] === undefined)) {
    const [key, missing] =
      pair[1] === undefined ? (["cert_file", "key_file"] as const) : (["key_file", "cert_file"] as const);
    about(`coordinator.${key}`, `coordinator.${key} needs coordinator.${missing} with it`);
  }
  if (values["network.bandwidth_mbit"] !== undefined && !values["network.isolate_lan"]) {
    about("network.bandwidth_mbit", "network.bandwidth_mbit needs network.isolate_lan = true, whose rules hold it");
  }
  for (const resource of ["vram", "memory", "disk"] as const) {
    const elevated = values[`pressure.${resource}_elevated_percent`];
    const critical = values[`pressure.${resource}_critical_percent`];
    if (elevated < critical) continue;
    const problem = `pressure.${resource}_critical_percent ${critical} must be above pressure.${resource}_elevated_percent ${elevated}`;
    const isOwn = (key: KeyName) => settings.some((setting) => setting.key === key && setting.source !== "default");
    const key = `pressure.${resource}_critical_percent` as const;
    about(isOwn(key) ? key : `pressure.${resource}_elevated_percent`, problem);
  }
  const windows = values["availability.windows"];
  const noticeSeconds = values["availability.notice_seconds"];
  const longestSeconds = longestStretchMinutes(windows) * 60;
  if (windows.length > 0 && noticeSeconds >= longestSeconds) {
    about(
      "availability.windows",
      `availability.windows are at most ${longestSeconds} seconds long and availability.notice_seconds is ${noticeSeconds}: nothing would ever be accepted; make the windows longer or the notice shorter`,
    );
  }
  return faults;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

async function located(
  faults: Fault[],
  file: string | undefined,
  contents: FileContents | undefined,
): Promise<string[]> {
  const lines = contents === undefined ? new Map<string, number>() : await linesOfKeys(contents.text);
  return faults
    .map(({ inFile, problem }) => {
      const line = inFile === undefined ? undefined : lines.get(inFile);
      const place = inFile === undefined ? "" : `${file}${line === undefined ? "" : `:${line}`}: `;
      return { line: line ?? 0, text: place + problem };
    })
    .sort((a, b) => a.line - b.line)
    .map(({ text }) => text);
}

/** Variables with our prefix that are for other parts of gpunode. */
const NOT_CONFIGURATION = /^GPUNODE_(CONFIG$|SIM_|COORDINATOR_API(_TOKEN)?$|PRIVATE_ENGINE$|TEST_)/;

function foreignVariables(env: NodeJS.ProcessEnv): string[] {
  const known: string[] = KEY_NAMES.map(envNameOf);
  return Object.keys(env)
    .filter((name) => name.startsWith("GPUNODE_") && !known.includes(name) && !NOT_CONFIGURATION.test(name))
    .map((name) => {
      const meant = nearest(name, known);
      return `the environment variable ${name} means nothing to gpunode${meant === undefined ? "" : `; did you mean ${meant}?`}`;
    });
}

function exposedToken(settings: readonly Setting[], file: string | undefined): string[] {
  const token = settings.find(({ key }) => key === "coordinator.join_token");
  if (file === undefined || token?.source !== file || (statSync(file).mode & 0o004) === 0) return [];
  return [`${file} holds coordinator.join_token and everybody on this machine can read it; run chmod o-rwx ${file}`];
}

/** How `gpunode config show` and the reference write a value. */
export function valueInWords(value: unknown): string {
  if (value === undefined) return "none";
  if (value instanceof Secret) return String(value);
  if (Array.isArray(value)) return `[${value.map(valueInWords).join(", ")}]`;
  if (typeof value === "object" && value !== null && "from" in value && "to" in value) {
    return `"${value.from}-${value.to}"`;
  }
  if (typeof value === "object" && value !== null && "toMinute" in value && "text" in value) {
    return JSON.stringify(value.text);
  }
  return JSON.stringify(value);
}
