import type { Command } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, EXIT, print, printJson, UsageError } from "./outcome.ts";

export function registerEnroll(program: Command): void {
  withJson(program.command("enroll"))
    .description("this node's key, by which a coordinator knows it")
    .option("--rotate", "give the node a new key, in place of one that others may have seen; its work goes on")
    .action(command(enroll));
}

async function enroll(options: AskOptions & { rotate?: true }): Promise<void> {
  if (options.rotate !== true) {
    throw new UsageError("there is only --rotate so far; a node enrols by itself when it is started with a join token");
  }
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
