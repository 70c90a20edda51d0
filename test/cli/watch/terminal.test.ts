import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startLocalApi } from "../../../src/local/server.ts";
import type { Snapshot } from "../../../src/local/snapshot.ts";
import { socketPathIn } from "../../../src/local/socket-path.ts";
import { patiently } from "../../agent/rig.ts";
import { noActions } from "../../local/no-actions.ts";
import { exampleSnapshot } from "../../local/snapshot-example.ts";
import { Pty } from "../../support/pty.ts";
import { node, root, scratch } from "../gpunode.ts";

/** On a real terminal, against the daemon's real door. */

const watching = `${node} ${root}/src/cli/main.ts status --watch`;
/** Says how the terminal is left, and stays, so that it can be looked at. */
const afterwards = "; echo LEFT $?; stty -a | tr '\\n' ' '; cat";

async function daemon(snapshot: () => Snapshot = present) {
  const runDir = scratch();
  const open = () =>
    startLocalApi({
      ...{ socketPath: socketPathIn(runDir), snapshot, actions: noActions },
      log: { debug() {}, info() {}, error() {} },
    });
  let door: AsyncDisposable | undefined = await open();
  const close = async () => {
    await door?.[Symbol.asyncDispose]();
    door = undefined;
  };
  onTestFinished(close);
  return {
    runDir,
    close,
    async comeBack() {
      door = await open();
    },
  };
}

/** The example, of now. */
function present(): Snapshot {
  return { ...exampleSnapshot(), at: new Date().toISOString() };
}

/** The process that watches, of those on the terminal. */
function watcherOn(pty: Pty): number {
  const { stdout } = spawnSync("ps", ["-o", "pid=,args=", "--ppid", String(pty.pid)], { encoding: "utf8" });
  return Number(/^ *(\d+) .*--watch/m.exec(stdout)?.[1]);
}

describe("status --watch on a terminal", () => {
  it("shows the node, each second anew, and q puts the terminal back as it was", async () => {
    const { runDir } = await daemon();
    await using pty = new Pty(`echo BEFORE; ${watching}${afterwards}`, { env: { GPUNODE_RUN_DIR: runDir } });
    const [, first] = await pty.shows(/^rig-01 {2}available.* (\d\d:\d\d:\d\d)\n/);
    expect(pty.isOnSecondScreen).toBe(true);
    expect(pty.text).toMatch(/ 0 {2}H100 80GB HBM3 {2}93 % {2}40\.0\/79\.6 GiB {2}61 °C/);
    expect(pty.text).toContain("q quit  ? help");
    await patiently(() => (pty.text.includes(first ?? "") ? undefined : true));
    expect(pty.text).not.toContain("BEFORE");
    pty.type("?");
    await pty.shows(/Any key goes back/);
    pty.type("x");
    await pty.shows(/q quit {2}\? help/);
    pty.type("q");
    await pty.shows(/BEFORE\nLEFT 0\n/);
    expect(pty.isOnSecondScreen).toBe(false);
    await pty.shows(/ icanon /);
    expect(pty.text).toMatch(/ echo /);
    // The cursor is shown, and lines wrap again.
    expect(pty.bytes.lastIndexOf("\x1b[?25h")).toBeGreaterThan(pty.bytes.lastIndexOf("\x1b[?25l"));
    expect(pty.bytes.lastIndexOf("\x1b[?7h")).toBeGreaterThan(pty.bytes.lastIndexOf("\x1b[?7l"));
  });

  it.each([
    ["SIGINT", "0"],
    ["SIGTERM", "0"],
    ["SIGHUP", "0"],
  ] as const)("%s ends it, and the terminal is as it was", async (signal, code) => {
    const { runDir } = await daemon();
    await using pty = new Pty(`trap : ${signal.slice(3)}; ${watching}${afterwards}`, {
      env: { GPUNODE_RUN_DIR: runDir },
    });
    await pty.shows(/^rig-01/);
    process.kill(watcherOn(pty), signal);
    await pty.shows(new RegExp(`LEFT ${code}\\n`));
    await pty.shows(/ icanon /);
    expect(pty.isOnSecondScreen).toBe(false);
  });

  it("an exception ends it too, and is seen on the terminal it leaves", async () => {
    const { runDir } = await daemon();
    const preload = join(scratch(), "fails.mjs");
    writeFileSync(preload, "process.on('SIGUSR2', () => { throw new Error('out of the blue'); });\n");
    const failing = watching.replace(node, `${node} --import ${preload}`);
    await using pty = new Pty(`${failing}${afterwards}`, { env: { GPUNODE_RUN_DIR: runDir } });
    await pty.shows(/^rig-01/);
    process.kill(watcherOn(pty), "SIGUSR2");
    await pty.shows(/LEFT [1-9]/);
    expect(pty.isOnSecondScreen).toBe(false);
    expect(pty.text).toContain("out of the blue");
    await pty.shows(/ icanon /);
  });

  it("Ctrl-Z gives the terminal to the shell, fg has the picture back, keys included", async () => {
    const { runDir } = await daemon();
    await using pty = new Pty("exec bash --norc -i", { env: { GPUNODE_RUN_DIR: runDir, PS1: "PROMPT " } });
    await pty.shows(/PROMPT/);
    pty.type(`${watching}\n`);
    await pty.shows(/^rig-01/);
    pty.type("\x1a");
    await pty.shows(/Stopped/);
    expect(pty.isOnSecondScreen).toBe(false);
    pty.type("echo still $((40 + 2))\n");
    await pty.shows(/still 42/);
    pty.type("fg\n");
    await pty.shows(/^rig-01/);
    expect(pty.isOnSecondScreen).toBe(true);
    pty.type("q");
    await pty.shows(/tch\nPROMPT\n/);
    pty.type("echo code $?\n");
    await pty.shows(/code 0/);
    pty.type("exit\n");
    expect(await pty.ended).toBe(0);
  });

  it("another size of the window shows at once", async () => {
    const { runDir } = await daemon();
    await using pty = new Pty(watching, { columns: 120, rows: 30, env: { GPUNODE_RUN_DIR: runDir } });
    await pty.shows(/ghcr\.io\/me\/train:1/);
    pty.resize(40, 8);
    await pty.shows(/^rig-01 {2}available {15}\d\d:\d\d:\d\d\n/);
    expect(pty.lines).toHaveLength(8);
    expect(pty.text).toMatch(/ 0 {2}93 % {2}40\.0\/79\.6 GiB {2}train-1/);
    pty.resize(120, 30);
    await pty.shows(/ghcr\.io\/me\/train:1/);
  });

  it("a daemon that goes is told, its picture stays, and it is taken up when it is back", async () => {
    const door = await daemon();
    await using pty = new Pty(watching, { env: { GPUNODE_RUN_DIR: door.runDir } });
    await pty.shows(/^rig-01 {2}available/);
    await door.close();
    await pty.shows(/^rig-01 {2}not running since \d\d:\d\d:\d\d, for [2-9] s/);
    expect(pty.lines[1]).toMatch(/^the daemon is not running: there is no socket/);
    expect(pty.text).toContain("train-1");
    await door.comeBack();
    await pty.shows(/^rig-01 {2}available/);
  });

  it("no colours with NO_COLOR, no Unicode without a UTF-8 locale, no cursor to move on a dumb terminal", async () => {
    const { runDir } = await daemon();
    await using plain = new Pty(watching, { env: { GPUNODE_RUN_DIR: runDir, NO_COLOR: "1", LANG: "C" } });
    await plain.shows(/rig-01 {2}available/);
    expect(plain.text).toMatch(/^[\n\x20-\x7e]*$/);
    const looks = plain.bytes.split("\x1b[").filter((part) => /^[\d;]+m/.test(part));
    expect(looks).toEqual([]);
    await using dumb = new Pty(watching, { columns: 200, rows: 60, env: { GPUNODE_RUN_DIR: runDir, TERM: "dumb" } });
    await dumb.shows(/^node +rig-01 is available/);
    expect(dumb.bytes).not.toContain("\x1b");
  });

  it("without a keyboard it goes on without keys, and names none", async () => {
    const { runDir } = await daemon();
    await using pty = new Pty(`${watching} < /dev/null${afterwards}`, { env: { GPUNODE_RUN_DIR: runDir } });
    await pty.shows(/^rig-01/);
    expect(pty.text).not.toContain("quit");
    // The terminal is not in the way of Ctrl-C then.
    const pid = watcherOn(pty);
    expect(pid).toBeGreaterThan(0);
    pty.type("\x03");
    await patiently(() => (existsSync(`/proc/${pid}`) ? undefined : true));
  });

  it("no daemon to begin with: exit code 3, and the terminal is left alone", async () => {
    await using pty = new Pty(watching, { columns: 200, env: { GPUNODE_RUN_DIR: scratch() } });
    expect(await pty.ended).toBe(3);
    expect(pty.bytes).not.toContain("\x1b[?1049h");
    await pty.shows(/gpunode: the daemon is not running/);
  });
});
