import type { Command } from "commander";
import type { CoordinatorClient } from "../coordinator/client.ts";
import { asking, type ClientOptions, clientFor, type GraceOptions, graceOf, say } from "./coordinator-asking.ts";
import { registerServe } from "./coordinator-serve.ts";
import { registerSubmit } from "./coordinator-submit.ts";
import { registerToken } from "./coordinator-token.ts";
import { registerCoordinatorUsage } from "./coordinator-usage.ts";
import { command, print, printJson, wholeNumber } from "./outcome.ts";

/** `gpunode coordinator …`: the reference coordinator, and its operator's commands over its HTTP API. */
export function registerCoordinator(program: Command): void {
  const coordinator = program.command("coordinator").description("run the reference coordinator, or talk to one");
  registerServe(coordinator);
  registerSubmit(coordinator);
  registerCoordinatorUsage(coordinator);
  registerToken(coordinator);

  asking(coordinator.command("nodes").description("nodes that ever joined")).action(
    command(async (options: ClientOptions) => {
      const nodes = await (await clientFor(options)).nodes();
      if (options.json === true) return printJson(nodes);
      const { nodesTable } = await import("../coordinator/tables.ts");
      print(nodes.length === 0 ? "no node has joined yet\n" : nodesTable(nodes, process.stdout));
    }),
  );
  asking(coordinator.command("workloads").description("workloads, or one with its events").argument("[id]")).action(
    command(async (id: string | undefined, options: ClientOptions) => {
      const client = await clientFor(options);
      const { workloadsTable, workloadInWords } = await import("../coordinator/tables.ts");
      if (id !== undefined) {
        const workload = await client.workload(id);
        return options.json === true ? printJson(workload) : print(workloadInWords(workload, process.stdout));
      }
      const workloads = await client.workloads();
      if (options.json === true) return printJson(workloads);
      print(workloads.length === 0 ? "nothing was submitted yet\n" : workloadsTable(workloads, process.stdout));
    }),
  );
  asking(coordinator.command("logs").description("output of a workload").argument("<id>"))
    .option("-f, --follow", "go on with what it still writes")
    .option("-n, --tail <lines>", "only the last so many lines")
    .action(command(showLogs));
  const grace = ["--grace-seconds <seconds>", "time to end by itself", String] as const;
  asking(coordinator.command("release").description("no longer wanted: end it").argument("<id>"))
    .option(...grace)
    .action(
      command(async (id: string, options: GraceOptions) => {
        const workload = await (await clientFor(options)).release(id, graceOf(options));
        say(options, workload, `${id} is released${workload.endedAt === undefined ? ", its node ends it" : ""}`);
      }),
    );
  asking(coordinator.command("preempt").description("take its GPUs back, with notice").argument("<id>"))
    .option(...grace)
    .option("--reason <text>", "told to the workload's owner")
    .action(
      command(async (id: string, options: GraceOptions & { reason?: string }) => {
        const reason = options.reason === undefined ? {} : { reason: options.reason };
        const workload = await (await clientFor(options)).preempt(id, { ...graceOf(options), ...reason });
        say(options, workload, `${id} is being preempted on ${workload.nodeName ?? workload.node}`);
      }),
    );
  asking(
    coordinator.command("drain").description("a node takes nothing new and hands back what runs").argument("<node>"),
  )
    .option(...grace)
    .action(
      command(async (node: string, options: GraceOptions) => {
        const client = await clientFor(options);
        say(options, await client.drain(await nodeId(client, node), graceOf(options)), `${node} is draining`);
      }),
    );
  asking(coordinator.command("resume").description("a drained node takes work again").argument("<node>")).action(
    command(async (node: string, options: ClientOptions) => {
      const client = await clientFor(options);
      say(options, await client.resume(await nodeId(client, node)), `${node} takes work again`);
    }),
  );
  asking(
    coordinator
      .command("bar")
      .description("keep a node out from now on; drain it first to end its work with notice")
      .argument("<node>"),
  )
    .option("--reason <text>", "told to the node's owner")
    .action(
      command(async (node: string, options: ClientOptions & { reason?: string }) => {
        const client = await clientFor(options);
        const reason = options.reason === undefined ? {} : { reason: options.reason };
        const barred = await client.bar(await nodeId(client, node), reason);
        const left = barred.workloads.length;
        const rest =
          left === 0
            ? ""
            : `; ${left} ${left === 1 ? "workload is" : "workloads are"} still there, which it ends by itself as their onDisconnect says`;
        say(options, barred, `${node} is barred${rest}`);
      }),
    );
  asking(coordinator.command("unbar").description("let a barred node in again").argument("<node>")).action(
    command(async (node: string, options: ClientOptions) => {
      const client = await clientFor(options);
      say(options, await client.unbar(await nodeId(client, node)), `${node} may come in again`);
    }),
  );
}

/** Nodes may be named by their name where only one has it. */
async function nodeId(client: CoordinatorClient, given: string): Promise<string> {
  const named = (await client.nodes()).filter((node) => node.name === given);
  if (named.length > 1) throw new Error(`${named.length} nodes are called ${given}: use the id`);
  return named[0]?.id ?? given;
}

async function showLogs(id: string, options: ClientOptions & { follow?: true; tail?: string }): Promise<void> {
  const client = await clientFor(options);
  const tail = options.tail === undefined ? {} : { tail: wholeNumber("--tail", options.tail) };
  for await (const line of client.logs(id, { follow: options.follow === true, ...tail })) {
    const stream =
      "data" in line && line.stream === "stderr" && options.json !== true ? process.stderr : process.stdout;
    if (options.json === true) await written(stream, `${JSON.stringify(line)}\n`);
    else if ("data" in line) await written(stream, line.data);
    else if (line.end === "slow_reader" || line.end === "node_disconnected") {
      throw new Error(`the output breaks off here: ${line.end.replace("_", " ")}`);
    }
  }
}

/** Resolves when the stream has taken it: a slow terminal or pipe slows the node down. */
function written(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => {
    stream.write(text, () => resolve());
  });
}
