import { type Command, Option } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import type { JoinOptions } from "./enroll/run.ts";
import { command, EXIT, print, printJson, UsageError, wholeNumber } from "./outcome.ts";

interface EnrollOptions extends AskOptions, Omit<JoinOptions, "config" | "waitSeconds"> {
  rotate?: true;
  token?: string;
  waitSeconds: string;
}

export function registerEnroll(program: Command): void {
  withJson(program.command("enroll"))
    .description("enrol this machine with a coordinator: asks for its address and a join token, and does the rest")
    .option("--coordinator <url>", "its address, such as wss://coordinator.example")
    .option("--token-file <file>", "read the join token from this file")
    .option("--token-stdin", "read the join token from standard input")
    .option("--without-token", "the coordinator knows this machine, or admits everybody")
    .option("--name <name>", "what this machine is called there (default: the host name)")
    .option("--ca-file <file>", 'PEM file of the authority of its certificate; "system": those this machine trusts')
    .option("--proxy <url>", "HTTP proxy it is reached through")
    .option("--insecure", "allow ws:// to another machine: what is sent can be read on the way")
    .option("--no-check", "do not look at the coordinator first")
    .option("--wait-seconds <seconds>", "how long to wait until it is connected", "60")
    .option("--yes", "ask nothing, and change what is set up already")
    .option("--dry-run", "look and say what would be done, and do nothing")
    .option("--rotate", "give the node a new key, in place of one that others may have seen; its work goes on")
    .addOption(new Option("--token <token>").hideHelp())
    .action(command(enroll));
}

async function enroll({ rotate, token, waitSeconds, ...options }: EnrollOptions): Promise<void> {
  if (token !== undefined) {
    throw new UsageError(
      "--token would show the join token to every user of this machine (ps lists command lines): use --token-file FILE or --token-stdin, or let enroll ask",
    );
  }
  if (rotate === true) return await rotateKey(options);
  if (options.json === true) throw new UsageError("--json goes with --rotate");
  const { join } = await import("./enroll/join.ts");
  await join({ ...options, waitSeconds: wholeNumber("--wait-seconds", waitSeconds) });
}

async function rotateKey(options: AskOptions): Promise<void> {
  const rotated = await (await daemonOf(options)).rotateKey();
  if (rotated.state === "pending") process.exitCode = EXIT.failed;
  if (options.json === true) return printJson(rotated);
  if (rotated.state === "done") {
    print(`This node has a new key, and is ${rotated.nodeId} now. The old one (${rotated.replaces}) is refused.\n`);
  } else {
    print(
      `The coordinator cannot be reached. The new key waits: it takes the place of ${rotated.nodeId} as soon as it can be. "gpunode status" shows it.\n`,
    );
  }
}
