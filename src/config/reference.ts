import type { Key } from "./key.ts";
import { envNameOf, KEY_NAMES, KEYS } from "./keys.ts";

/** docs/configuration.md, written from the schema (`node scripts/configuration-reference.mjs`). */
export function configurationReference(): string {
  const rows = KEY_NAMES.map((name) => {
    const { kind, description, defaultText, flag }: Key<unknown> = KEYS[name];
    const value =
      defaultText.includes("`") || !/^["[{]|^\d|^true$|^false$/.test(defaultText) ? defaultText : `\`${defaultText}\``;
    const ways = [`\`${envNameOf(name)}\``, ...(flag === undefined ? [] : [`\`${flag}\``])].join("<br>");
    return `| \`${name}\` | ${kind.name} | ${value} | ${description} | ${ways} |`;
  });
  return `# Configuration

\`gpunode run\` works without a configuration file. Where there is one it is TOML: \`--config FILE\`, else \`$GPUNODE_CONFIG\`, else
\`/etc/gpunode/config.toml\` if it exists, else, without root, \`~/.config/gpunode/config.toml\`. A flag goes before the environment, the environment before the file, the file before the default.
A key nobody knows is an error, with its line and the nearest known key. \`gpunode config check\` says whether a file is right,
\`gpunode config show\` what is in force and where each value comes from; secrets are never shown.

\`\`\`toml
name = "rig-01"
labels = { site = "garage" }

[coordinator]
url = "wss://coordinator.example"
join_token_file = "/etc/gpunode/join-token"

[availability]
windows = ["Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"]

[policy]
images = ["ghcr.io/me/*"]
max_workloads = 4
reserve = { cpus = 2, memory_mib = 4096 }
\`\`\`

In an environment variable a list is written \`a,b\` (windows \`a;b\`, since days have commas), a table \`site=garage,rack=3\`, a truth value \`true\` or \`false\`; an empty variable
counts as not set. A dot in a key is a section: \`policy.reserve.cpus\` is \`cpus\` in \`reserve\` of \`[policy]\`.

| key | value | default | what it does | environment, flag of \`gpunode run\` |
|---|---|---|---|---|
${rows.join("\n")}
`;
}
