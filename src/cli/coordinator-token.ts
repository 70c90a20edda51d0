import type { Command } from "commander";
import { asking, type ClientOptions, clientFor, say } from "./coordinator-asking.ts";
import { lengthOf } from "./length.ts";
import { command, wholeNumber } from "./outcome.ts";

interface TokenOptions extends ClientOptions {
  uses: string;
  expires: string;
}

export function registerToken(coordinator: Command): void {
  const token = coordinator.command("token").description("join tokens, which admit new nodes");
  asking(token.command("create").description("make a join token, and print it: nobody is told it again"))
    .option("--uses <count>", "how many nodes it admits", "1")
    .option("--expires <length>", "how long it admits them: 30m, 1h, 7d", "1h")
    .action(command(create));
}

async function create(options: TokenOptions): Promise<void> {
  const expiresInSeconds = Math.round(lengthOf("--expires", options.expires) / 1000);
  const made = await (await clientFor(options)).makeToken({
    uses: wholeNumber("--uses", options.uses),
    expiresInSeconds,
  });
  say(options, made, made.token);
}
