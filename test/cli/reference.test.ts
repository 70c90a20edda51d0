import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { EXIT } from "../../src/cli/outcome.ts";
import { gpunodeProgram } from "../../src/cli/program.ts";
import { commandsOf, everyCommand } from "../../src/cli/reference/commands.ts";
import { commandFiles } from "../../src/cli/reference/files.ts";
import { keepDate, pageDate, prose, word } from "../../src/cli/reference/mdoc.ts";
import { KEY_NAMES } from "../../src/config/keys.ts";
import { debianTool } from "../support/debian-tools.ts";
import { root } from "./gpunode.ts";

delete process.env.GPUNODE_COORDINATOR_API;

const read = (name: string) => (existsSync(join(root, name)) ? readFileSync(join(root, name), "utf8") : undefined);
const pages = ["man/gpunode.1", "man/gpunode.toml.5"];

it.each(commandFiles(read))("%s is what the program says (npm run schema)", (name, text) => {
  expect(read(name)).toBe(text);
});

/** A letter and a step back, by which a terminal of old shows bold. */
const OVERSTRUCK = new RegExp(`.${String.fromCharCode(8)}`, "g");

/** The page as a terminal shows it, without overstriking. */
function shown(page: string): string {
  const { stdout, stderr, status } = spawnSync("man", ["--warnings", "-l", join(root, page)], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", MANWIDTH: "200", MAN_KEEP_FORMATTING: "", GROFF_NO_SGR: "1" },
  });
  expect([status, stderr]).toEqual([0, ""]);
  return stdout.replaceAll(OVERSTRUCK, "").replace(/\s+/g, " ");
}

it.runIf(existsSync("/usr/bin/man"))(
  "the pages are shown without a warning, with every command, option, exit code and key",
  () => {
    const commands = shown("man/gpunode.1");
    for (const { path, options } of everyCommand(commandsOf(gpunodeProgram(async () => undefined)))) {
      if (path.length === 1 || path.at(-1) === "help") continue;
      expect(commands).toContain(path.join(" "));
      for (const { long = "" } of options)
        if (long !== "--help") expect(commands, `${path.join(" ")} ${long}`).toContain(long);
    }
    for (const code of Object.values(EXIT)) expect(commands).toContain(` ${code} `);
    // What is hidden is not told of.
    expect(commands).not.toContain("__complete");
    const keys = shown("man/gpunode.toml.5");
    for (const key of KEY_NAMES) expect(keys).toContain(` ${key} `);
  },
);

it("the pages are valid: mandoc finds nothing worth a warning", async ({ skip }) => {
  const tool = await debianTool("mandoc");
  if (tool === undefined) return skip("there is no mandoc");
  for (const page of pages) {
    const { stdout, stderr, status } = spawnSync(
      tool.paths.mandoc ?? "",
      ["-T", "lint", "-W", "warning", join(root, page)],
      {
        encoding: "utf8",
      },
    );
    expect([status, stdout, stderr], page).toEqual([0, "", ""]);
  }
});

it("what would be markup is text", () => {
  expect(prose(".TH is no macro. A `--flag` − \\n… Done.").concat(prose("'nor this"))).toEqual([
    "\\&.TH is no macro.",
    "A \\fB\\-\\-flag\\fP \\[u2212] \\en... Done.",
    "\\&'nor this",
  ]);
  expect(["-config", "Ar", "a b", 'say "x"', "id"].map(word)).toEqual([
    "\\-config",
    "\\&Ar",
    '"a b"',
    '"say \\(dqx\\(dq"',
    "\\&id",
  ]);
});

it("a page is as old as its last change", () => {
  const page = (date: string, text: string) => `.Dd ${date}\n.Dt X 1\n${text}\n`;
  expect(keepDate(page("May 2, 2027", "same"), page("May 1, 2027", "same"))).toBe(page("May 1, 2027", "same"));
  expect(keepDate(page("May 2, 2027", "new"), page("May 1, 2027", "old"))).toBe(page("May 2, 2027", "new"));
  expect(keepDate(page("May 2, 2027", "new"), undefined)).toBe(page("May 2, 2027", "new"));
  expect(pageDate(new Date("2026-11-26T23:59:59Z"))).toBe("November 26, 2026");
});
