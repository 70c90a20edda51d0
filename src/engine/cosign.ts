import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, mkdtemp, open, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { GpunodeError } from "../protocol/errors.ts";
import type { Secret } from "../protocol/secret.ts";
import type { RegistryAuth } from "../protocol/workload.ts";
import type { SignatureCheck } from "../workload/needs.ts";
import { parseReference } from "./images.ts";
import { hidingLogin, loginFor } from "./login.ts";

/**
 * Signatures of images, looked for by cosign (https://docs.sigstore.dev/cosign): `cosign verify --key KEY NAME@DIGEST` succeeds
 * where the registry holds a signature of that very digest by that key, and with cosign's defaults also an entry in its
 * transparency log. Nothing else of its answer is relied on, so that any version of it will do. It is started without a shell,
 * with a time limit, with none of the daemon's environment that it does not need, and is given a login in no argument and no
 * file that outlives it.
 */
export interface CosignOptions {
  /** PEM files with public keys; one of them is enough. At least one. */
  keys: readonly string[];
  /** Where it keeps the roots of its transparency log. */
  cacheDir: string;
  /** For one key; default 2 min: it asks the registry, and the log. */
  timeoutMs?: number;
  /** Where PATH and proxies are read. */
  env?: NodeJS.ProcessEnv;
}

const TIMEOUT_MS = 120_000;
/** Kept of what it says; the rest is read and dropped. */
const WORDS_MOST = 16 * 1024;
const SHOWN_MOST = 300;
/** What it may need of the daemon's environment: how to reach registries through proxies, and whom to trust there. */
const PASSED_ON = /^(?:PATH|(?:https?|no|all)_proxy|SSL_CERT_(?:FILE|DIR))$/i;
/** Memory, on every Linux: what is written here is on no disk. */
const MEMORY_DIR = "/dev/shm";
/** The descriptor that a login is handed over by. */
const LOGIN_FD = 3;

export function cosignCheck(options: CosignOptions): SignatureCheck {
  const { keys, env = process.env } = options;
  return async (image, { auth, signal }) => {
    const program = await find("cosign", env.PATH ?? "");
    if (program === undefined) {
      throw new GpunodeError(
        "policy_denied",
        `policy.cosign_keys asks for a signature of ${image}, and there is no cosign on this node to look for it: its owner can install cosign (https://docs.sigstore.dev/cosign) where PATH finds it, or take policy.cosign_keys out`,
        { details: { rule: "policy.cosign_keys" } },
      );
    }
    let words = "";
    for (const key of keys) {
      signal.throwIfAborted();
      const answer = await verify({ program, key, image }, auth, { ...options, env, signal });
      if (answer.ok) return;
      words = answer.words;
    }
    throw new GpunodeError(
      "image_not_allowed",
      `policy.cosign_keys: no signature of ${image} by ${keys.join(" or ")} was found (cosign: ${hidingLogin(auth)(words).slice(0, SHOWN_MOST)})`,
      { details: { rule: "policy.cosign_keys", keys: [...keys] } },
    );
  };
}

/** Absolute path of a program; folders of PATH that are relative are left out, they would be anybody's. */
async function find(name: string, path: string): Promise<string | undefined> {
  for (const dir of path.split(":").filter(isAbsolute)) {
    const program = join(dir, name);
    const isThere = await access(program, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return program;
  }
  return undefined;
}

interface Running extends CosignOptions {
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

type Answer = { ok: true } | { ok: false; words: string };

async function verify(
  { program, key, image }: { program: string; key: string; image: string },
  auth: Secret<RegistryAuth> | undefined,
  options: Running,
): Promise<Answer> {
  const { repository } = parseReference(image);
  // As the engine does: a registry on this machine may do without TLS.
  const isLocal = /^(?:localhost|127(?:\.\d+){3})(?::\d+)?\//.test(repository);
  const args = ["verify", "--key", key, ...(isLocal ? ["--allow-http-registry"] : []), image];
  await using login = await handOver(repository, auth);
  const env = {
    ...Object.fromEntries(Object.entries(options.env).filter(([name]) => PASSED_ON.test(name))),
    LC_ALL: "C",
    TUF_ROOT: options.cacheDir,
    // Without a login it is not to find the owner's either.
    DOCKER_CONFIG: login.configDir,
  };
  return await run(program, args, { ...options, env, loginFd: login.fd });
}

/**
 * A Docker configuration with one login in it, as cosign reads it. The file has no name by the time it is read: `config.json` leads to
 * a descriptor that only the child has.
 */
async function handOver(repository: string, auth: Secret<RegistryAuth> | undefined) {
  const configDir = await mkdtemp(join(MEMORY_DIR, "gpunode-"));
  const remove = () => rm(configDir, { recursive: true, force: true });
  try {
    const nameless = join(configDir, "login");
    await writeFile(nameless, JSON.stringify(dockerConfig(repository, auth)), { mode: 0o600 });
    const file = await open(nameless, "r");
    await unlink(nameless);
    await symlink(`/proc/self/fd/${LOGIN_FD}`, join(configDir, "config.json"));
    const end = async () => {
      await file.close();
      await remove();
    };
    return { configDir, fd: file.fd, [Symbol.asyncDispose]: end };
  } catch (error) {
    await remove();
    throw error;
  }
}

function dockerConfig(repository: string, auth: Secret<RegistryAuth> | undefined): object {
  const login = loginFor(repository, auth);
  if (login === undefined) return {};
  const { serveraddress = "", username, password, identitytoken } = login;
  const basic = Buffer.from(`${username}:${password}`).toString("base64");
  return { auths: { [serveraddress]: identitytoken === undefined ? { auth: basic } : { identitytoken } } };
}

/** Resolves with how it ended; rejects with the signal's reason where that ended it. */
function run(
  program: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; loginFd: number; timeoutMs?: number; signal: AbortSignal },
): Promise<Answer> {
  const { env, loginFd, timeoutMs = TIMEOUT_MS, signal } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const child = spawn(program, args, {
    env,
    cwd: "/",
    stdio: ["ignore", "ignore", "pipe", loginFd],
    signal,
    killSignal: "SIGKILL",
    timeout: timeoutMs,
  });
  let words = "";
  child.stderr?.setEncoding("utf8").on("data", (piece: string) => {
    // What it says last is what went wrong.
    words = (words + piece).slice(-WORDS_MOST);
  });
  child.once("error", (error) => {
    if (signal.aborted) reject(signal.reason);
    else resolve({ ok: false, words: `it could not be started: ${error.message}` });
  });
  child.once("close", (code, killedBy) => {
    if (code === 0) resolve({ ok: true });
    else if (killedBy === null) resolve({ ok: false, words: lastWords(words) ?? `it ended with code ${code}` });
    else resolve({ ok: false, words: `it was ended by ${killedBy}, at the latest after ${timeoutMs / 1000} s` });
  });
  return promise;
}

/** Its sentence about what went wrong: "Error: …" in any version; else the last it said. */
function lastWords(words: string): string | undefined {
  const lines = words
    .split("\n")
    .map((line) => line.replace(/\p{Cc}+/gu, " ").trim())
    .filter((line) => line !== "");
  return lines.find((line) => line.startsWith("Error: "))?.replace("Error: ", "") ?? lines.at(-1);
}
