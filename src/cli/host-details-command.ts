import type { Command } from "commander";
import { command, printJson } from "./outcome.ts";

/** Hidden: only the daemon starts it, through `askHostDetails`. */
export const HOST_DETAILS = "__host-details";

export function registerHostDetails(program: Command): void {
  program.command(HOST_DETAILS, { hidden: true }).action(
    command(async () => {
      const { hostDetails } = await import("../host/details.ts");
      printJson(await hostDetails());
    }),
  );
}
