import type { Key } from "../../config/key.ts";
import { envNameOf, KEY_NAMES, KEYS } from "../../config/keys.ts";
import { example, pageHead, prose, word } from "./mdoc.ts";

/** gpunode.toml(5). Pure. */
export function configurationPage(options: { date: string; version: string }): string {
  return `${[
    ...pageHead("gpunode.toml", 5, options),
    ...[".Sh NAME", ".Nm gpunode.toml", ".Nd configuration of gpunode"],
    ".Sh DESCRIPTION",
    ...prose(
      "gpunode(1) works without a configuration. Where there is a file it is TOML: the one that `--config` names, else that of `$GPUNODE_CONFIG`, else /etc/gpunode/config.toml if it exists. A flag goes before the environment, the environment before the file, the file before the default. A key nobody knows is an error, with its line and the nearest known key.",
    ),
    ".Pp",
    ...prose(
      "`gpunode config check` says whether a file is right, `gpunode config show` what is in force and where each value comes from. Secrets are never shown.",
    ),
    ".Pp",
    ...prose(
      "A dot in a key is a section: `policy.reserve.cpus` is `cpus` in `reserve` of `[policy]`. In an environment variable a list is written a,b (windows a;b, since days have commas), a table site=garage,rack=3, a truth value true or false; an empty variable counts as not set.",
    ),
    ".Sh KEYS",
    ".Bl -tag -width Ds",
    ...KEY_NAMES.flatMap((name) => {
      const { kind, description, defaultText, flag }: Key<unknown> = KEYS[name];
      const isTold = defaultText.includes("`") || !/^["[{]|^\d|^true$|^false$/.test(defaultText);
      const fallback = isTold ? defaultText : `\`${defaultText}\``;
      return [
        `.It Ic ${word(name)}`,
        ...prose(description),
        ".Pp",
        ...prose(`Value: ${kind.name.replaceAll("\\|", "|")}.`),
        ...prose(`Default: ${fallback}.`),
        ...prose(`Environment: \`${envNameOf(name)}\`.`),
        ...(flag === undefined ? [] : prose(`Flag of \`gpunode run\`: \`${flag}\`.`)),
      ];
    }),
    ".El",
    ...[".Sh FILES", ".Bl -tag -width Ds", ".It Pa /etc/gpunode/config.toml", ".El"],
    ".Sh EXAMPLES",
    ...example([
      'name = "rig-01"',
      'labels = { site = "garage" }',
      "",
      "[coordinator]",
      'url = "wss://coordinator.example"',
      'join_token_file = "/etc/gpunode/join-token"',
      "",
      "[availability]",
      'windows = ["Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"]',
      "",
      "[policy]",
      'images = ["ghcr.io/me/*"]',
      "max_workloads = 4",
      "reserve = { cpus = 2, memory_mib = 4096 }",
    ]),
    ...[".Sh SEE ALSO", ".Xr gpunode 1"],
  ].join("\n")}\n`;
}
