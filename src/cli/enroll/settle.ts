import { hostname } from "node:os";
import { envNameOf } from "../../config/keys.ts";
import { isLoopback } from "../../link/dial.ts";
import { connectLocal } from "../../local/client.ts";
import { socketPathIn } from "../../local/socket-path.ts";
import { UsageError } from "../outcome.ts";
import { optionsOf } from "../table.ts";
import type { Terminal } from "../terminal.ts";
import {
  type Answers,
  askToken,
  askUntil,
  confirm,
  flagValue,
  givenToken,
  readKey,
  readPath,
  readUrl,
} from "./answers.ts";
import { complaint, lookAt } from "./look.ts";
import { type Place, requireReadableByService } from "./place.ts";
import { type JoinOptions, type Run, say } from "./run.ts";

/** `--ca-file system`: no file, the authorities that this machine trusts anyway. */
const SYSTEM_AUTHORITIES = "system";

/** All answers, each right by itself and the coordinator looked at. */
export async function settle(run: Run): Promise<Answers> {
  const { options, place, terminal } = run;
  const given = await givenToken(options, process.env, process.stdin);
  const url = givenUrl(options);
  requireAll(run, { url, token: given });
  if (terminal !== undefined)
    say("This enrols this machine with a coordinator. Ctrl-C ends it, and nothing has changed then.\n");
  await agreeToChange(run, url);
  const way = await settleWay(run, url);
  const token =
    given === "ask" && terminal !== undefined
      ? await askToken(terminal, "Join token (it is not shown; Enter where the coordinator knows this machine): ")
      : given;
  const answers: Answers = {
    ...way,
    token: token === "ask" ? undefined : token,
    name: await settleName(run),
  };
  if (place.isService && answers.caFile !== undefined) requireReadableByService(answers.caFile);
  return answers;
}

function givenUrl({ coordinator }: JoinOptions): string | undefined {
  if (coordinator !== undefined) return flagValue("--coordinator", "coordinator.url", coordinator);
  const fromEnv = process.env[envNameOf("coordinator.url")];
  return fromEnv ? flagValue(envNameOf("coordinator.url"), "coordinator.url", fromEnv) : undefined;
}

/** Where nobody can be asked, the flags must say it all. Throws `UsageError` with those that are missing. */
function requireAll({ options, terminal }: Run, { url, token }: { url: string | undefined; token: unknown }): void {
  if (terminal !== undefined) return;
  const missing = [
    ...(url === undefined ? ["--coordinator URL"] : []),
    ...(token === "ask" ? ["--token-file FILE (or --token-stdin, or --without-token)"] : []),
  ];
  if (missing.length === 0) return;
  const why = options.yes === true ? "with --yes nothing is asked" : "there is no terminal here to ask at";
  throw new UsageError(`${why}: give ${missing.join(" and ")}`);
}

/** A node that has a coordinator already: says so, and has it agreed to. Throws `UsageError` where nobody can, and it would be another one. */
async function agreeToChange({ place, terminal, options, signal }: Run, url: string | undefined): Promise<void> {
  const { coordinator, runDir } = place.current.config;
  const before = coordinator.url;
  if (before === undefined) return;
  const snapshot = await connectLocal(socketPathIn(runDir))
    .status({ signal })
    .catch(() => undefined);
  const running = snapshot?.workloads.filter(({ finishedAt }) => finishedAt === undefined).length ?? 0;
  const state = snapshot?.connection.state === "connected" ? "and is connected to it" : "and is not connected";
  say(`This machine is set up for ${before} already, ${state}.\n`);
  const isSame = url === before;
  const work = running === 1 ? "1 workload runs" : `${running} workloads run`;
  const loss =
    running === 0 || isSame
      ? ""
      : ` ${work} for it, and ${running === 1 ? "ends" : "end"} when another coordinator takes over.`;
  if (loss !== "") say(`${loss.trim()}\n`);
  if (options.yes === true) return;
  if (terminal === undefined) {
    if (isSame) return;
    throw new UsageError(`this machine is set up for ${before} already: --yes changes that to ${url}`);
  }
  const question = url === undefined ? "Enrol it anew?" : isSame ? "Enrol it there again?" : `Change that to ${url}?`;
  if (!(await confirm(terminal, question, isSame))) throw new Error("left as it is; nothing was changed");
}

type Way = Omit<Answers, "token" | "name">;

/** The coordinator and how it is reached, tried; asks again until that works. Throws where nobody can be asked. */
async function settleWay({ options, place, terminal, signal }: Run, given: string | undefined): Promise<Way> {
  const { coordinator } = place.current.config;
  const proxy = givenProxy(options, place);
  let caFile = options.caFile === undefined ? coordinator.caFile : fileOf(options.caFile);
  let insecure = options.insecure === true || coordinator.insecure;
  let url = given;
  for (;;) {
    url ??= await askUrl(terminal, coordinator.url);
    if (isPlain(url) && !insecure) {
      if (terminal === undefined)
        throw new UsageError(`${url} ${PLAIN}: use wss://, or add --insecure where the network between is yours alone`);
      say(`  ${url} ${PLAIN}.\n`);
      insecure = await confirm(terminal, "Is the network between yours alone, and do you want that?", false);
      if (!insecure) url = undefined;
      continue;
    }
    const way = { url, insecure: insecure && isPlain(url), caFile, proxy };
    if (!options.check) return way;
    const { certFile, keyFile } = coordinator;
    const known = { ...way, proxy: proxy ?? coordinator.proxy?.reveal(), certFile, keyFile };
    const wrong = await lookAt(known, signal, optionsOf(process.stdout));
    if (wrong === undefined) return way;
    hintAtProxy(known.proxy, wrong.about);
    if (terminal === undefined) throw new Error(complaint(url, wrong));
    if (wrong.wants === "ca_file" && (await confirm(terminal, "Do you have its authority as a PEM file?", false))) {
      caFile = await askUntil(terminal, "Path of that file: ", readPath);
    } else {
      const next = await askUntil(terminal, "Another address, or Enter to look again: ", (answer) =>
        answer === "" ? { ok: true, value: url as string } : readUrl(answer),
      );
      url = next;
    }
  }
}

const PLAIN =
  "would send everything unencrypted to another machine, the join token and the secrets of workloads included";

function isPlain(url: string): boolean {
  const { protocol, hostname: host } = new URL(url);
  return protocol === "ws:" && !isLoopback(host);
}

async function askUrl(terminal: Terminal | undefined, before: string | undefined): Promise<string> {
  // Without a terminal it was given.
  if (terminal === undefined) throw new UsageError("give --coordinator URL");
  const question =
    before === undefined ? "Coordinator (such as wss://coordinator.example): " : `Coordinator [${before}]: `;
  return await askUntil(terminal, question, (answer) =>
    readUrl(answer === "" && before !== undefined ? before : answer),
  );
}

function givenProxy({ proxy }: JoinOptions, { configFile }: Place): string | undefined {
  if (proxy === undefined) return undefined;
  const url = URL.canParse(proxy) ? new URL(proxy) : undefined;
  if (url !== undefined && (url.username !== "" || url.password !== "")) {
    throw new UsageError(
      `--proxy with a password would show it to every user of this machine (ps lists command lines): write it into ${configFile} as coordinator.proxy`,
    );
  }
  flagValue("--proxy", "coordinator.proxy", proxy);
  return proxy;
}

function fileOf(caFile: string): string | undefined {
  if (caFile === SYSTEM_AUTHORITIES) return undefined;
  const reading = readPath(caFile);
  if (!reading.ok) throw new UsageError(`--ca-file: ${reading.why}`);
  return reading.value;
}

/** Whoever set one for their shell expects it to be used. */
function hintAtProxy(proxy: string | undefined, about: string): void {
  const set = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"].find((name) => process.env[name]);
  if (proxy !== undefined || set === undefined || (about !== "name" && about !== "connection")) return;
  say(`  This shell uses a proxy (${set}). gpunode uses one only where it is told so: --proxy URL.\n`);
}

async function settleName({ options, place, terminal }: Run): Promise<string | undefined> {
  if (options.name !== undefined) return flagValue("--name", "name", options.name);
  if (terminal === undefined) return undefined;
  const before = place.current.config.name || hostname();
  return await askUntil<string | undefined>(terminal, `What it is called there [${before}]: `, (answer) =>
    answer === "" ? { ok: true, value: undefined } : readKey<string>("name", answer),
  );
}
