import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";

const START_TIMEOUT_MS = 10_000;

/** A real registry (Debian's docker-registry) on a loopback port of its own, its files below `dir`, deletes allowed. */
export async function startDebianRegistry(options: {
  dir: string;
  packagesDir: string;
  /** Further variables of its environment. */
  env?: Readonly<Record<string, string>>;
  /** Path of a file as htpasswd(1) writes it, with bcrypt: nobody else is let in. */
  htpasswd?: string;
  log: (line: string) => void;
}): Promise<AsyncDisposable & { address: string }> {
  const programs = await findOrUnpack(
    { "docker-registry": "docker-registry" },
    { dir: options.packagesDir, log: options.log },
  );
  const address = `127.0.0.1:${await freePort()}`;
  await mkdir(options.dir, { recursive: true });
  const config = join(options.dir, "config.yml");
  const settings = {
    version: 0.1,
    log: { level: "warn" },
    storage: { filesystem: { rootdirectory: join(options.dir, "data") }, delete: { enabled: true } },
    http: { addr: address },
    ...(options.htpasswd !== undefined && { auth: { htpasswd: { realm: "test", path: options.htpasswd } } }),
  };
  // JSON is YAML, too.
  await writeFile(config, JSON.stringify(settings));
  const logFile = join(options.dir, "log");
  const log = openSync(logFile, "a");
  const child = spawn(programs.paths["docker-registry"] ?? "docker-registry", ["serve", config], {
    env: { ...process.env, ...programs.env, ...options.env },
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  const exited = once(child, "exit");
  const stop = async () => {
    child.kill("SIGKILL");
    await exited;
  };
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await answers(address))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      await stop();
      throw new Error(`docker-registry did not come up:\n${(await readFile(logFile, "utf8")).slice(-1000)}`);
    }
    await sleep(30);
  }
  return { address, [Symbol.asyncDispose]: stop };
}

async function answers(address: string): Promise<boolean> {
  return fetch(`http://${address}/v2/`, { signal: AbortSignal.timeout(1_000) }).then(
    (response) => response.ok || response.status === 401,
    () => false,
  );
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
