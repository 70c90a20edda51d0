import type { Command } from "commander";
import { tokensIn } from "./coordinator-asking.ts";
import { command, print, UsageError, wholeNumber } from "./outcome.ts";

interface ServeOptions {
  listen: string;
  state: string;
  tlsCert?: string;
  tlsKey?: string;
  joinToken?: string;
  joinTokenFile?: string;
  joinTokenUses?: string;
  open?: true;
  apiTokenFile?: string;
  publicHost?: string[];
  heartbeatSeconds: string;
  leaseSeconds: string;
  telemetryIntervalMs: string;
}

export function registerServe(coordinator: Command): void {
  coordinator
    .command("serve")
    .description("run the reference coordinator")
    .option("--listen <address>", "host:port for agents and the HTTP API", "127.0.0.1:7800")
    .option("--state <dir>", "folder for its database", "gpunode-coordinator")
    .option("--tls-cert <file>", "PEM certificate; with --tls-key it speaks TLS")
    .option("--tls-key <file>", "PEM key")
    .option("--join-token <token>", "admits new nodes (better: --join-token-file)")
    .option("--join-token-file <file>", "tokens that admit new nodes, one a line")
    .option("--join-token-uses <count>", "how many nodes each token admits (default: any number)")
    .option("--open", "admit every node without a token; on loopback only")
    .option("--api-token-file <file>", "tokens of the HTTP API, one a line; needed off loopback")
    .option(
      "--public-host <host>",
      "a name agents dial it by, where that is not the address it listens on; may be repeated",
      (host: string, before: string[] = []) => [...before, host],
    )
    .option("--heartbeat-seconds <seconds>", "ping interval", "10")
    .option("--lease-seconds <seconds>", "a node silent for longer is lost", "60")
    .option("--telemetry-interval-ms <ms>", "how often nodes send telemetry", "1000")
    .action(command(serve));
}

async function serve(options: ServeOptions): Promise<void> {
  const { readFile } = await import("node:fs/promises");
  const { tlsCert, tlsKey } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) throw new UsageError("--tls-cert and --tls-key go together");
  const tls =
    tlsCert === undefined || tlsKey === undefined
      ? {}
      : { tls: { cert: await readFile(tlsCert), key: await readFile(tlsKey) } };
  const joinTokens = [
    ...(options.joinToken === undefined ? [] : [options.joinToken]),
    ...(options.joinTokenFile === undefined ? [] : await tokensIn(options.joinTokenFile)),
  ];
  const [{ startCoordinator }, { createLog }] = await Promise.all([
    import("../coordinator/server.ts"),
    import("./log.ts"),
  ]);
  // A token on the command line is then no longer in the process list.
  process.title = "gpunode coordinator";
  const stop = signalled();
  const coordinator = await startCoordinator({
    listen: listenAddress(options.listen),
    stateDir: options.state,
    ...tls,
    ...(joinTokens.length > 0 && { joinTokens }),
    ...(options.joinTokenUses !== undefined && {
      joinTokenUses: wholeNumber("--join-token-uses", options.joinTokenUses),
    }),
    open: options.open === true,
    ...(options.apiTokenFile !== undefined && { apiTokens: await tokensIn(options.apiTokenFile) }),
    publicHosts: options.publicHost ?? [],
    heartbeatSeconds: wholeNumber("--heartbeat-seconds", options.heartbeatSeconds),
    leaseSeconds: wholeNumber("--lease-seconds", options.leaseSeconds),
    telemetryIntervalMs: wholeNumber("--telemetry-interval-ms", options.telemetryIntervalMs),
    log: createLog({ level: "info", format: "auto" }, process.stderr),
  });
  print(`agents   ${coordinator.url}\nAPI      ${coordinator.apiUrl}/api/v1\n`);
  if (coordinator.joinToken !== undefined) {
    print(`token    ${coordinator.joinToken}   (shown once: it admits new nodes)\n`);
  }
  await stop;
  await coordinator.close();
}

/** Resolves at the first SIGTERM or SIGINT; the second has its usual effect. */
function signalled(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      process.off("SIGTERM", stop).off("SIGINT", stop);
      resolve();
    };
    process.on("SIGTERM", stop).on("SIGINT", stop);
  });
}

function listenAddress(text: string): { host: string; port: number } {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(parts?.[3]);
  if (parts === null || port > 65535) throw new UsageError(`--listen ${text}: expected host:port, e.g. 127.0.0.1:7800`);
  return { host: parts[1] ?? parts[2] ?? "", port };
}
