import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { REMOVE_TABLE, TABLE } from "./rules.ts";

/** Where distributions put it, before whatever `PATH` says. */
const SYSTEM_FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
/** It answers within 20 ms; a machine that swaps may take seconds. */
const NFT_MS = 10_000;
const OUTPUT_MAX = 4 * 1024 * 1024;

/** The firewall cannot be used; the message says why and what to do. */
export class FirewallUnusable extends Error {}

/** Our one table in the kernel's packet filter, through the program `nft`. Every method throws `FirewallUnusable`. */
export interface Firewall {
  /** Runs a script whole or not at all. */
  run(script: string): Promise<void>;
  /** The table as the kernel has it, without what changes by itself (counters, who was seen); undefined where it is not there. */
  table(): Promise<string | undefined>;
  /** Packets refused that came from a bridge. */
  refused(bridge: string): Promise<number>;
  /** Removes the table; one that is not there is no error. */
  remove(): Promise<void>;
  /** Calls `onChange` whenever the table was changed, by whomever, until the signal ends it or nft gives up. Never rejects. */
  watch(onChange: () => void, signal: AbortSignal): Promise<void>;
}

/** `path` is for tests; default: the machine's own nft, looked for at each call, since the owner may install it meanwhile. */
export function nftFirewall({ path }: { path?: string } = {}): Firewall {
  const program = path === undefined ? findNft : async () => path;

  async function nft(args: readonly string[], input?: string): Promise<string> {
    const file = await program();
    return await new Promise((resolve, reject) => {
      const child = execFile(
        file,
        args,
        { timeout: NFT_MS, killSignal: "SIGKILL", maxBuffer: OUTPUT_MAX, env: environment() },
        (error, stdout, stderr) => (error === null ? resolve(stdout) : reject(unusable(error, stderr))),
      );
      // A program that cannot be started has no input; its error comes through the callback.
      child.stdin?.on("error", () => undefined);
      child.stdin?.end(input ?? "");
    });
  }

  return {
    async run(script) {
      await nft(["-f", "-"], script);
    },
    table: async () => {
      const text = await nft(["-s", "list", "table", ...TABLE.split(" ")]).catch(absent);
      return text === undefined ? undefined : withoutSeen(text);
    },
    async refused(bridge) {
      const text = await nft(["list", "set", ...TABLE.split(" "), "refused"]).catch(absent);
      // "gpn-0123456789a" counter packets 3 bytes 180 expires 23h59m
      const entry = text?.split(/[,{}]/).find((part) => part.includes(`"${bridge}"`));
      return Number(/ packets (\d+)/.exec(entry ?? "")?.[1] ?? 0);
    },
    async remove() {
      await nft(["-f", "-"], REMOVE_TABLE);
    },
    async watch(onChange, signal) {
      const file = await program().catch(() => undefined);
      if (file === undefined || signal.aborted) return;
      // No part of a start.
      const { createInterface } = await import("node:readline");
      const child = spawn(file, ["monitor"], { stdio: ["ignore", "pipe", "ignore"], env: environment() });
      const ended = once(child, "close").catch(() => undefined);
      const end = () => child.kill("SIGKILL");
      signal.addEventListener("abort", end, { once: true });
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line.includes(` ${TABLE}`)) onChange();
      });
      await ended;
      signal.removeEventListener("abort", end);
    },
  };
}

/** The machine's nft as an absolute path. Throws `FirewallUnusable` where there is none. */
async function findNft(): Promise<string> {
  const folders = [...SYSTEM_FOLDERS, ...(process.env.PATH ?? "").split(delimiter).filter(isAbsolute)];
  for (const folder of folders) {
    const path = join(folder, "nft");
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  throw new FirewallUnusable("nft is not installed: install the package nftables");
}

/** Messages are read by their words, so they come in one language. */
function environment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: "C" };
}

function unusable(error: Error & { code?: unknown; killed?: boolean }, stderr: string): FirewallUnusable {
  const words = stderr.trim().split("\n")[0] ?? "";
  if (error.code === "ENOENT") return new FirewallUnusable("nft is not installed: install the package nftables");
  if (error.killed === true) return new FirewallUnusable(`nft did not answer within ${NFT_MS / 1000} s`);
  if (/Operation not permitted|must be root/i.test(stderr)) {
    return new FirewallUnusable(
      `nft may not read or change the firewall (${words}): the daemon needs the capability CAP_NET_ADMIN, which "gpunode service install" gives its service`,
    );
  }
  return new FirewallUnusable(`nft failed: ${words === "" ? error.message : words}`, { cause: new Error(stderr) });
}

function absent(error: unknown): undefined {
  const { cause } = error as { cause?: unknown };
  if (cause instanceof Error && /No such file or directory/.test(cause.message)) return undefined;
  throw error;
}

/** A listing without the members of the sets that packets fill. */
function withoutSeen(listing: string): string {
  return listing
    .split("\n\t}\n")
    .map((block) => (/^\t\tflags dynamic/m.test(block) ? block.replace(/\n\t\telements = \{[^}]*\}/, "") : block))
    .join("\n\t}\n");
}
