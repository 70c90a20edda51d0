import type { Command } from "commander";
import { asking, type ClientOptions, clientFor } from "./coordinator-asking.ts";
import { command, print, printJson } from "./outcome.ts";
import { optionsOf, paint, printable } from "./table.ts";
import { instantOf, usageInWords } from "./usage.ts";

export function registerCoordinatorUsage(coordinator: Command): void {
  asking(
    coordinator.command("usage").description("GPU-hours and energy of each node, every record verified with its key"),
  )
    .option("--since <when>", "so far back: 12h, 7d, 4w, or a date as 2026-11-01", "30d")
    .action(command(usage));
}

/** The bill, node by node. Exit code 1 where a record does not verify. */
async function usage(options: ClientOptions & { since: string }): Promise<void> {
  const sinceMs = instantOf(options.since, Date.now());
  const client = await clientFor(options);
  const [{ publicKeyFrom }, { summarize }] = await Promise.all([
    import("../protocol/identity.ts"),
    import("../local/usage-summary.ts"),
  ]);
  const records = new Map<string, unknown[]>();
  for await (const { position: _position, node, ...event } of client.events()) {
    if (event.kind !== "usage" || Date.parse(String(event.to)) <= sinceMs) continue;
    const own = records.get(node) ?? [];
    records.set(node, own);
    own.push(event);
  }
  const bills = [];
  for (const { id, name, publicKey, replaces = [] } of await client.nodes()) {
    const own = records.get(id);
    if (own === undefined) continue;
    const keys = [publicKey, ...replaces.map((key) => key.publicKey)].map(publicKeyFrom);
    bills.push({ node: { id, name, publicKey }, ...(await summarize(own, keys)) });
  }
  if (options.json === true) printJson(bills);
  else if (bills.length === 0) print(`Nothing was used since ${options.since}.\n`);
  else {
    const words = optionsOf(process.stdout);
    const parts = bills.map(
      ({ node, ...bill }) =>
        `${paint(printable(node.name), "bold", words)}  ${node.id}\n${usageInWords(bill, { since: options.since, who: "the node" }, words)}`,
    );
    print(parts.join("\n"));
  }
  if (bills.some(({ problems }) => problems.length > 0)) process.exitCode = 1;
}
