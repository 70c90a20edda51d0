import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type LogCall, type Look, linesFor } from "../../src/cli/log-lines.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { node, root, scratch } from "./gpunode.ts";

const INFO = 30;
const WARN = 40;
const ERROR = 50;
const now = () => new Date(2026, 0, 31, 14, 3, 5, 7).getTime();
const line = (level: number, ...call: LogCall) => linesFor({ look: "journal", now })(level, call);

describe("a line for a person", () => {
  it("says the sentence first, then its fields", () => {
    const fields = { workload: "train", generation: 1, gpus: ["GPU-1", "GPU-2"], code: undefined, ready: true };
    expect(line(INFO, fields, "workload running")).toBe(
      "<6>workload running workload=train generation=1 gpus=GPU-1,GPU-2 ready=true\n",
    );
    expect(line(INFO, "stopped")).toBe("<6>stopped\n");
    expect(line(INFO, {}, "stopped")).toBe("<6>stopped\n");
    expect(line(INFO, "%d of %s", 2, "three")).toBe("<6>2 of three\n");
  });

  it("quotes what would not be read as one value", () => {
    const fields = { name: "two words", empty: "", quoted: 'a"b', pair: "a=b", list: [{ a: 1 }], at: new Date(0) };
    expect(line(INFO, fields, "x")).toBe(
      '<6>x name="two words" empty="" quoted="a\\"b" pair="a=b" list=[{"a":1}] at=1970-01-01T00:00:00.000Z\n',
    );
  });

  it.each([
    [10, 7],
    [20, 7],
    [30, 6],
    [35, 6],
    [40, 4],
    [50, 3],
    [60, 2],
  ])("of level %i has priority %i, on each of its lines", (level, priority) => {
    expect(line(level, "one\ntwo\nthree")).toBe(`<${priority}>one\n<${priority}>    two\n<${priority}>    three\n`);
  });

  it("tells the reason of an error and of what caused it, each once, and no places in the code for what can happen", () => {
    const cause = new Error("database or disk is full");
    const err = new GpunodeError("internal", "the state database refused a write", { cause });
    expect(line(WARN, { workload: "w", err }, "a step failed; trying again")).toBe(
      "<4>a step failed; trying again: the state database refused a write: database or disk is full workload=w\n",
    );
    expect(line(WARN, { err }, "it went wrong: the state database refused a write")).toBe(
      "<4>it went wrong: the state database refused a write: database or disk is full\n",
    );
    expect(line(WARN, { err: "a text" }, "it went wrong")).toBe("<4>it went wrong: a text\n");
  });

  it("of a failure shows where in the code it came from, indented, with the same priority", () => {
    const err = new TypeError("x is not a function", { cause: new Error("the first cause") });
    const [head, ...rest] = line(ERROR, { err, workload: "w" }, "a bug").trimEnd().split("\n");
    expect(head).toBe("<3>a bug: x is not a function: the first cause workload=w");
    expect(rest[0]).toMatch(/^<3> {4}at .*log\.test\.ts:\d+:\d+\)?$/);
    expect(rest).toContain("<3>    caused by Error");
    expect(rest.every((each) => each.startsWith("<3>    "))).toBe(true);
    expect(line(ERROR, err).startsWith("<3>x is not a function: the first cause\n<3>    at ")).toBe(true);
  });

  it("is not led astray by an error that causes itself, has no stack, or by a value that cannot be written", () => {
    const err = new Error("round");
    err.cause = err;
    delete err.stack;
    expect(line(ERROR, { err }, "x")).toBe("<3>x: round\n");
    const round: { self?: unknown } = {};
    round.self = round;
    expect(line(INFO, { round, big: 2n }, "x")).toBe('<6>x round="[not shown]" big=2\n');
  });

  it("lets nobody whose words it repeats steer the terminal, forge a line or a priority, or flood it", () => {
    const forged = line(WARN, { name: "a\n<0>b", esc: "\x1b[2J" }, "said \x1b[31mred\u202e\n<0>forged");
    expect(forged).toBe('<4>said �[31mred� name="a\\n<0>b" esc=�[2J\n<4>    <0>forged\n');
    expect(line(WARN, "x".repeat(100_000)).length).toBeLessThan(8100);
  });

  it("shows no secret", () => {
    const secret = new Secret("t0ps3cret");
    expect(line(ERROR, { secret, deep: { secret } }, "x")).toBe('<3>x secret=[hidden] deep={"secret":"[hidden]"}\n');
  });

  it.each<[Look, string]>([
    ["terminal", "14:03:05 warn  so it is key=1\n    more\n"],
    ["file", "2026-01-31 14:03:05.007 warn  so it is key=1\n    more\n"],
  ])("at a %s has the time and its level in a word", (look, expected) => {
    expect(linesFor({ look, now })(WARN, [{ key: 1 }, "so it is\nmore"])).toBe(expected);
  });

  it("is coloured only where colours show", () => {
    expect(linesFor({ look: "terminal", color: true, now })(WARN, ["x"])).toContain("\x1b[33mwarn");
    expect(linesFor({ look: "terminal", now })(WARN, ["x"])).not.toContain("\x1b");
  });
});

describe("the daemon's log", () => {
  const log = JSON.stringify(join(root, "src/cli/log.ts"));
  /** The command line of a program that writes a log in this format. */
  const program = (format: string, more = "") => {
    const file = join(scratch(), "program.mjs");
    writeFileSync(
      file,
      `import { createLog } from ${log};
      const log = createLog({ level: "info", format: "${format}" }, process.stdout);
      log.debug("not shown");
      log.warn({ code: "c" }, "so it is");
      log.fatal("the end");
      ${more}`,
    );
    return `${node} ${file}`;
  };
  const shell = (script: string) => spawnSync("sh", ["-c", script], { encoding: "utf8" });
  /** As systemd does it: the variable names the file that standard output is. */
  const asService = (format: string) =>
    shell(`exec 3>&1; export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/3); exec ${program(format)}`).stdout;

  it("is text with priorities in the journal, JSON in any other pipe", () => {
    expect(asService("auto")).toBe("<4>so it is code=c\n<2>the end\n");
    const lines = shell(program("auto")).stdout.trim().split("\n");
    expect(lines.map((each) => JSON.parse(each))).toMatchObject([
      { level: "warn", code: "c", msg: "so it is", time: expect.any(String) },
      { level: "fatal", msg: "the end" },
    ]);
    // The variable alone does not make it the journal: what a service starts may write elsewhere.
    expect(shell(`JOURNAL_STREAM=1:2 ${program("auto")}`).stdout).toMatch(/^\{/);
  });

  it("is what was asked for, in the journal and in a file", () => {
    expect(JSON.parse(asService("json").split("\n")[0] ?? "")).toMatchObject({ msg: "so it is" });
    const file = join(scratch(), "log");
    shell(`${program("text")} > ${file}`);
    expect(readFileSync(file, "utf8")).toMatch(
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warn {2}so it is code=c\n.* fatal the end\n$/,
    );
  });

  it("is short at a terminal, coloured unless NO_COLOR is set", () => {
    const terminal = (env: string) => shell(`${env} script -qec "${program("auto")}" /dev/null </dev/null`).stdout;
    expect(terminal("NO_COLOR=1")).toMatch(
      /^\d\d:\d\d:\d\d warn {2}so it is code=c\r\n\d\d:\d\d:\d\d fatal the end\r\n$/,
    );
    expect(terminal("TERM=xterm-256color NO_COLOR=")).toContain("\x1b[33mwarn");
  });

  it("goes on where its reader is gone", () => {
    const more = 'for (let n = 0; n < 10; n += 1) log.warn("x"); console.error("alive");';
    expect(shell(`${program("text", more)} | true`).stderr).toBe("alive\n");
  });
});
