import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { Draw } from "../../fuzz/draw.ts";
import { mutatedText } from "../../fuzz/hostile.ts";
import { type Changes, EditRefused, editConfig } from "../../src/config/edit.ts";

const URL_AND_TOKEN: Changes = {
  "coordinator.url": "wss://new.example",
  "coordinator.join_token_file": "/etc/gpunode/join-token",
};

describe("a configuration file that is edited", () => {
  it("as service install writes it: below the section's line, above the examples", async () => {
    const text = `# docs/configuration.md lists every key.

[coordinator]
# url = "wss://coordinator.example"
# join_token_file = "/etc/gpunode/join-token"

# [policy]
# images = ["ghcr.io/me/*"]
`;
    expect(await editConfig(text, { name: "rig", ...URL_AND_TOKEN })).toBe(`# docs/configuration.md lists every key.

name = "rig"

[coordinator]
url = "wss://new.example"
join_token_file = "/etc/gpunode/join-token"
# url = "wss://coordinator.example"
# join_token_file = "/etc/gpunode/join-token"

# [policy]
# images = ["ghcr.io/me/*"]
`);
  });

  it.each<[string, string, Changes, string]>([
    ["nothing", "", { "coordinator.url": "wss://c" }, '[coordinator]\nurl = "wss://c"\n'],
    ["no section", 'name = "x"', { "coordinator.url": "wss://c" }, 'name = "x"\n\n[coordinator]\nurl = "wss://c"\n'],
    [
      "a value with a comment",
      "[coordinator]\n  url   = 'ws://old'  # by Ann\nproxy = \"http://p:1\"\n",
      { "coordinator.url": "wss://c" },
      '[coordinator]\n  url   = "wss://c"  # by Ann\nproxy = "http://p:1"\n',
    ],
    [
      "a section in the middle",
      '[coordinator]\nurl = "ws://old" # why\n# about policy\n[policy]\nimages = ["*"]\n',
      { "coordinator.ca_file": "/ca.pem" },
      '[coordinator]\nurl = "ws://old" # why\nca_file = "/ca.pem"\n# about policy\n[policy]\nimages = ["*"]\n',
    ],
    [
      "an inline table",
      'coordinator = { url = "ws://old", join_token = "t" } # here\n',
      { "coordinator.url": "wss://c", "coordinator.join_token": undefined, "coordinator.insecure": true },
      'coordinator = { url = "wss://c", insecure = true } # here\n',
    ],
    [
      "an empty inline table",
      "coordinator = {}\n",
      { "coordinator.url": "wss://c" },
      'coordinator = { url = "wss://c" }\n',
    ],
    [
      "dotted keys",
      'coordinator.url = "ws://old"\ncoordinator.insecure = true\n[log]\nlevel = "warn"\n',
      { "coordinator.url": "wss://c", "coordinator.insecure": undefined, "coordinator.ca_file": "/ca" },
      'coordinator.url = "wss://c"\ncoordinator.ca_file = "/ca"\n[log]\nlevel = "warn"\n',
    ],
    [
      "a key that goes, whose comment stays",
      '[coordinator]\njoin_token = "t0ken" # from Ann\nurl = "ws://old"\n',
      { "coordinator.join_token": undefined },
      '[coordinator]\n# from Ann\nurl = "ws://old"\n',
    ],
    [
      "line ends of Windows",
      '# x\r\n[coordinator]\r\nurl = "ws://old"\r\n',
      { "coordinator.ca_file": "/ca", name: "n" },
      'name = "n"\r\n\r\n# x\r\n[coordinator]\r\nurl = "ws://old"\r\nca_file = "/ca"\r\n',
    ],
    [
      "text that only looks like the section",
      'name = """\n[coordinator]\nurl = "ws://no"\n"""\n',
      { "coordinator.url": "wss://c" },
      'name = """\n[coordinator]\nurl = "ws://no"\n"""\n\n[coordinator]\nurl = "wss://c"\n',
    ],
    ["odd characters", "", { name: 'a"\\\t\u007f\u{1F600}' }, 'name = "a\\"\\\\\\t\\u007f\u{1F600}"\n'],
  ])("with %s", async (_what, text, changes, expected) => {
    expect(await editConfig(text, changes)).toBe(expected);
  });

  it("that is no TOML, or could not be changed alone, is left to its owner, with what to write", async () => {
    for (const text of ["[coordinator\n", "[[coordinator]]\nurl = 1\n", "coordinator = 3\n"]) {
      const refused = await editConfig(text, URL_AND_TOKEN).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(EditRefused);
      expect(String(refused)).toContain(
        'do it by hand: coordinator.url = "wss://new.example"; coordinator.join_token_file',
      );
    }
  });

  const rounds = 1500;
  it(`keeps every comment, line and other key, in ${rounds} files drawn at random`, async () => {
    for (let seed = 0; seed < rounds; seed += 1) {
      const draw = Draw.seeded(seed, 20);
      const text = configText(draw);
      const changes = someChanges(draw);
      const edited = await editConfig(text, changes).catch((error: unknown) => {
        throw new Error(`seed ${seed}: ${JSON.stringify(text)} with ${JSON.stringify(changes)}`, { cause: error });
      });
      const about = `seed ${seed}`;
      expect(leavesOf(parse(edited)), about).toEqual(withChanges(leavesOf(parse(text)), changes));
      // What stands on lines that no change is about stands there as before, in the same order.
      const touched = /\b(?:url|join_token|join_token_file|insecure|ca_file|name|coordinator)\b/;
      const kept = (toml: string) =>
        toml.split(/\r?\n/).filter((line) => !/^\s*(?:#|$)/.test(line) && !touched.test(line));
      expect(kept(edited), about).toEqual(kept(text));
      const comments = (toml: string) => toml.match(/#c\d+/g) ?? [];
      expect(comments(edited), about).toEqual(comments(text));
      expect(edited.includes("\r\n"), about).toBe(text.includes("\r\n"));
      expect(await editConfig(edited, changes), about).toBe(edited);
    }
  });

  it("that is broken anywhere is edited rightly or refused, and nothing else comes of it", async () => {
    let refused = 0;
    for (let seed = 0; seed < rounds; seed += 1) {
      const draw = Draw.seeded(seed, 21);
      const text = mutatedText(draw, configText(draw), [
        "[coordinator]",
        "coordinator.",
        "url",
        "=",
        "{",
        "}",
        '"""',
        "#",
        "\r",
      ]);
      const changes = someChanges(draw);
      const edited = await editConfig(text, changes).catch((error: unknown) => {
        expect(error, `seed ${seed}`).toBeInstanceOf(EditRefused);
        refused += 1;
      });
      if (typeof edited === "string") {
        expect(leavesOf(parse(edited)), `seed ${seed}`).toEqual(withChanges(leavesOf(parse(text)), changes));
      }
    }
    // Some are broken and some are not: else this would prove nothing.
    expect(refused).toBeGreaterThan(rounds / 10);
    expect(refused).toBeLessThan(rounds);
  });
});

function someChanges(draw: Draw): Changes {
  const changes: Changes = {};
  if (draw.once(3)) changes.name = draw.of(["rig-01", 'o"dd\\', "ü\u{1F600}"]);
  if (!draw.once(4)) changes["coordinator.url"] = "wss://new.example:8443";
  if (!draw.once(3)) changes["coordinator.join_token_file"] = "/etc/gpunode/join-token";
  if (!draw.once(3)) changes["coordinator.join_token"] = undefined;
  if (draw.once(2)) changes["coordinator.insecure"] = draw.of([undefined, true]);
  if (draw.once(2)) changes["coordinator.ca_file"] = draw.of([undefined, "/ca b.pem"]);
  return changes;
}

/** A file as somebody may have written it: each of TOML's ways, comments anywhere, other sections around. */
function configText(draw: Draw): string {
  let comments = 0;
  const numbered = () => {
    comments += 1;
    return `#c${comments}`;
  };
  const comment = (often: number) =>
    draw.once(often) ? `${draw.of([" ", "\t", ""])}${numbered()} ${draw.of(["", "url = 1", "[x]", "ü"])}` : "";
  const between = () => draw.list(2, () => draw.of(["", "  ", `${numbered()} more`]));
  const gap = () => draw.of([" ", "", "  "]);
  const value = () =>
    draw.of([
      '"text"',
      "'raw \\ text'",
      '"""\n[coordinator]\nother = 1\n"""',
      "12",
      "true",
      '["a", "b"]',
      '[\n  "a", # inside\n  "b",\n]',
      "{ cpus = 1, x.y = 2 }",
      "1979-05-27T07:32:00Z",
      '"\u{1F600} # no comment"',
    ]);
  const line = (key: string, of: string) => `${gap()}${key}${gap()}=${gap()}${of}${comment(3)}`;
  const ours = [
    ["url", '"ws://old.example"'],
    ["join_token", '"t0ken"'],
    ["insecure", "true"],
    ["ca_file", "'/old.pem'"],
    ["proxy", '"http://u:p@proxy:3128"'],
    ['"key_file"', '"/key"'],
  ].filter(() => draw.once(2));
  const others = (names: readonly string[]) => names.filter(() => draw.once(2)).map((key) => line(key, value()));
  const style = draw.of(["table", "inline", "dotted", "none"]);
  const top = [...others(["labels", "state_dir", "run_dir"]), ...(draw.once(2) ? [line("name", '"old"')] : [])];
  if (style === "inline")
    top.push(
      line(
        "coordinator",
        `{${gap()}${ours.map(([key, of]) => `${key}${gap()}=${gap()}${of}`).join(`${gap()},${gap()}`)}${gap()}}`,
      ),
    );
  if (style === "dotted") top.push(...ours.map(([key, of]) => line(`coordinator${gap()}.${key}`, of ?? "")));
  const table =
    style === "table"
      ? [[`[${gap()}coordinator${gap()}]${comment(3)}`, ...ours.map(([key, of]) => line(key ?? "", of ?? ""))]]
      : [];
  const sections = [
    ...table,
    ...["docker", "policy", '"odd name"', "policy.max"]
      .filter(() => draw.once(2))
      .map((name) => [`[${name}]${comment(4)}`, ...others(["a", "b", "c.d"])]),
  ];
  if (draw.once(2)) sections.reverse();
  const lines = [
    ...between(),
    ...top,
    ...sections.flatMap((section) => [
      ...between(),
      ...section.flatMap((one) => [one, ...(draw.once(4) ? between() : [])]),
    ]),
  ];
  const text = lines.join("\n") + (draw.once(4) ? "" : "\n");
  return draw.once(5) ? text.replaceAll("\n", "\r\n") : text;
}

/** Every value by its full name; empty tables are left out. */
function leavesOf(tree: object, prefix = ""): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(tree).flatMap(([key, value]) => {
      const isTable = typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
      return isTable ? Object.entries(leavesOf(value, `${prefix}${key}.`)) : [[`${prefix}${key}`, value]];
    }),
  );
}

function withChanges(leaves: Record<string, unknown>, changes: Changes): Record<string, unknown> {
  return Object.fromEntries(Object.entries({ ...leaves, ...changes }).filter(([, value]) => value !== undefined));
}
