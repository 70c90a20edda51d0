import {
  cpSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { execPath } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { node, outcome, root, scratch, start } from "./gpunode.ts";

/** A package with the launcher, and in place of the bundle a program of the test. */
function packageWith(bundle: string | undefined): string {
  const dir = scratch();
  mkdirSync(join(dir, "dist"));
  mkdirSync(join(dir, "node_modules"));
  cpSync(join(root, "bin/gpunode.js"), join(dir, "bin/gpunode.js"));
  writeFileSync(join(dir, "package.json"), '{ "type": "module" }');
  if (bundle !== undefined) writeFileSync(join(dir, "dist/gpunode.js"), bundle);
  return dir;
}

/** Lets the launcher believe that this is Node 20: what it does then is the same on a real one. */
const OLD = "data:text/javascript,Object.defineProperty(process.versions, 'node', { value: '20.1.0' })";
const oldNode = (dir: string, args: string[]) => start(node, ["--import", OLD, join(dir, "bin/gpunode.js"), ...args]);

function withNode24(dir: string): string {
  const brought = join(dir, `node_modules/node-linux-${process.arch}/bin`);
  mkdirSync(brought, { recursive: true });
  symlinkSync(execPath, join(brought, "node"));
  return dir;
}

it("says what to do where nothing is built yet", async () => {
  const dir = packageWith(undefined);
  expect(await outcome(start(node, [join(dir, "bin/gpunode.js")]))).toEqual({
    code: 1,
    out: "",
    err: `gpunode: ${dir}/dist/gpunode.js is not there: run "npm run build" in ${dir}.\n`,
  });
});

describe("started by an older Node", () => {
  it("goes on with the Node that npm brought, with its arguments and its exit code", async () => {
    const dir = withNode24(packageWith("console.log(process.argv.slice(2).join('|')); process.exitCode = 7;"));
    expect(await outcome(oldNode(dir, ["a b", "-c"]))).toEqual({ code: 7, out: "a b|-c\n", err: "" });
  });

  it("passes signals on", async () => {
    const bundle = "process.on('SIGTERM', () => process.exit(9)); console.log('up'); setInterval(() => {}, 1000);";
    const child = oldNode(withNode24(packageWith(bundle)), []);
    const result = outcome(child);
    await sleep(1000);
    child.kill("SIGTERM");
    expect((await result).code).toBe(9);
  });

  it("says what is needed where there is no newer one", async () => {
    const dir = packageWith("");
    rmSync(join(dir, "node_modules"), { recursive: true });
    const { code, err } = await outcome(oldNode(dir, []));
    expect(code).toBe(1);
    expect(err).toContain("gpunode needs Node 24 or newer");
    expect(err).toContain('run "npm ci"');
  });
});

describe("the daemon", () => {
  /** One that keeps its code at once; `build` is the name in its first line. */
  const daemon = (build: string) =>
    `/* ${build} */(function (builtin, folder, keepCode) { "use strict";
      function rarely() { return builtin("path").basename(folder); }
      console.log(rarely(), process.argv[2]); keepCode();
    })`;
  const started = (dir: string) => outcome(start(node, [join(dir, "bin/gpunode.js"), "run"]));
  const folderOf = (dir: string) => join(dir, "node_modules/.gpunode/compile-cache");
  const up = { code: 0, out: "dist run\n", err: "" };

  function packageWithDaemon() {
    const dir = packageWith("");
    writeFileSync(join(dir, "dist/daemon.js"), daemon("one"));
    return dir;
  }

  it("has its compiled code kept, for this user alone, and taken by the next start", async () => {
    const dir = packageWithDaemon();
    expect(await started(dir)).toEqual(up);
    const [file = ""] = readdirSync(folderOf(dir));
    expect(file).toBe(`daemon-one-${process.version}-${process.arch}.code`);
    const kept = join(folderOf(dir), file);
    const { mode, ino } = statSync(kept);
    expect(mode & 0o777).toBe(0o600);
    expect(readFileSync(kept).includes("rarely")).toBe(true);
    expect(await started(dir)).toEqual(up);
    expect(statSync(kept).ino).toBe(ino);
  });

  it.each([
    ["cut short", (code: Buffer) => code.subarray(0, 40)],
    ["empty", () => Buffer.alloc(0)],
    ["spoiled", (code: Buffer) => Buffer.from(code.map((byte, at) => (at === code.length >> 1 ? byte ^ 1 : byte)))],
  ])("starts all the same where the kept code is %s, and keeps it anew", async (_, spoil) => {
    const dir = packageWithDaemon();
    await started(dir);
    const kept = join(folderOf(dir), readdirSync(folderOf(dir))[0] ?? "");
    const code = readFileSync(kept);
    writeFileSync(kept, spoil(code));
    expect(await started(dir)).toEqual(up);
    expect(readFileSync(kept).length).toBe(code.length);
    expect(readFileSync(kept).equals(spoil(code))).toBe(false);
  });

  it("of another build takes none of the old code, and has it removed", async () => {
    const dir = packageWithDaemon();
    await started(dir);
    writeFileSync(join(dir, "dist/daemon.js"), daemon("two"));
    expect(await started(dir)).toEqual(up);
    expect(readdirSync(folderOf(dir))).toEqual([`daemon-two-${process.version}-${process.arch}.code`]);
  });
});

it("the bundle starts by itself, without what dockerode needs only for other engines", async () => {
  const dir = scratch();
  expect(await outcome(start(node, ["scripts/build.mjs", dir]))).toEqual({ code: 0, out: "", err: "" });
  expect(await outcome(start(node, [join(dir, "gpunode.js"), "--version"]))).toEqual({
    code: 0,
    out: "0.1.0\n",
    err: "",
  });
  const sources = globSync(`${dir}/**/*.map`).flatMap(
    (map) => JSON.parse(readFileSync(map, "utf8")).sources as string[],
  );
  expect(sources.some((source) => source.includes("commander"))).toBe(true);
  expect(sources.filter((source) => /node_modules\/(ssh2|@grpc|protobufjs)\//.test(source))).toEqual([]);
});
