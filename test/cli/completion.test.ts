import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startLocalApi } from "../../src/local/server.ts";
import { socketPathIn } from "../../src/local/socket-path.ts";
import { noActions } from "../local/no-actions.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";
import { debianTool } from "../support/debian-tools.ts";
import { Pty } from "../support/pty.ts";
import { gpunode, node, outcome, root, scratch } from "./gpunode.ts";

/** A folder for PATH with `gpunode` in it, and a daemon to ask: where it is, and a configuration that leads there. */
async function machine() {
  const dir = scratch();
  const [bin, runDir, config] = [join(dir, "bin"), join(dir, "run"), join(dir, "config.toml")];
  mkdirSync(bin);
  writeFileSync(join(bin, "gpunode"), `#!/bin/sh\nexec ${node} ${root}/src/cli/main.ts "$@"\n`);
  chmodSync(join(bin, "gpunode"), 0o755);
  writeFileSync(config, `run_dir = "${runDir}"\n`);
  const api = await startLocalApi({
    ...{ socketPath: socketPathIn(runDir), snapshot: exampleSnapshot, actions: noActions },
    log: { debug() {}, info() {}, error() {} },
  });
  onTestFinished(() => Promise.resolve(api[Symbol.asyncDispose]()));
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, GPUNODE_RUN_DIR: runDir };
  return { dir, bin, config, env };
}

/** What a program of this environment writes; it writes nothing on stderr, and the daemon goes on meanwhile. */
async function written(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<string[]> {
  const { code, out, err } = await outcome(spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] }));
  expect([code, err]).toEqual([0, ""]);
  return out.split("\n").filter((word) => word !== "");
}

/** What bash offers for these words, the last of which is being typed. Sorted. */
async function offered(words: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<string[]> {
  const script = `source ${root}/completions/gpunode.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gpunode; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return (await written("bash", ["--norc", "-c", script, "bash", ...words], env)).sort();
}

describe("bash", () => {
  it.each([
    [["gpunode", "st"], ["status"]],
    [
      ["gpunode", "re"],
      ["reclaim", "resume", "resume-sampling"],
    ],
    [["gpunode", "coordinator", "su"], ["submit"]],
    [
      ["gpunode", "coordinator", "token", ""],
      ["create", "help"],
    ],
    [
      ["gpunode", "status", "-"],
      ["--config", "--help", "--json", "--watch", "-h"],
    ],
    [["gpunode", "status", "--json", "--w"], ["--watch"]],
    // What an option is given is no argument, and "=" is a word of its own.
    [["gpunode", "--version", "st"], ["status"]],
    [["gpunode", "run", "--log-level", "w"], ["warn"]],
    [["gpunode", "run", "--log-level", "=", "w"], ["warn"]],
    [
      ["gpunode", "run", "--log-level", "="],
      ["debug", "error", "fatal", "info", "silent", "trace", "warn"],
    ],
    [["gpunode", "run", "--name", "status", "--js"], []],
    [["gpunode", "run", "--name", ""], []],
    [
      ["gpunode", "completion", ""],
      ["bash", "fish", "zsh"],
    ],
    [["gpunode", "completion", "bash", ""], []],
    // Behind "--" all is the container's.
    [["gpunode", "coordinator", "submit", "image", "--", "-"], []],
    [["gpunode", "frobnicate", ""], []],
  ])("%j: %j", async (words, expected) => {
    expect(await offered(words)).toEqual(expected);
  });

  it("files and folders where the value is one", async () => {
    const dir = scratch();
    mkdirSync(join(dir, "folder"));
    writeFileSync(join(dir, "file.toml"), "");
    expect(await offered(["gpunode", "status", "--config", `${dir}/f`])).toEqual([`${dir}/file.toml`, `${dir}/folder`]);
    expect(await offered(["gpunode", "run", "--state-dir", `${dir}/f`])).toEqual([`${dir}/folder`]);
  });

  it("asks the daemon for ids of workloads and indexes of GPUs, the one that --config names", async () => {
    const { env, config } = await machine();
    expect(await offered(["gpunode", "logs", ""], env)).toEqual(["bad", "train-1"]);
    expect(await offered(["gpunode", "logs", "-f", "tr"], env)).toEqual(["train-1"]);
    expect(await offered(["gpunode", "reclaim", "--gpu", ""], env)).toEqual(["0", "1"]);
    expect(await offered(["gpunode", "reclaim", "--gpu", "0", ""], env)).toEqual(["0", "1"]);
    expect(await offered(["gpunode", "reclaim", "--gpu", "0", "--f"], env)).toEqual(["--for"]);
    const elsewhere = { ...env, GPUNODE_RUN_DIR: scratch() };
    expect(await offered(["gpunode", "logs", ""], elsewhere)).toEqual([]);
    const { GPUNODE_RUN_DIR: _, ...unset } = env;
    expect(await offered(["gpunode", "logs", "--config", config, ""], unset)).toEqual(["bad", "train-1"]);
    // Of a coordinator's workloads the daemon knows nothing.
    expect(await offered(["gpunode", "coordinator", "logs", ""], env)).toEqual([]);
  });

  it("completes as one types, in a bash without anything else", async () => {
    const { env } = await machine();
    await using pty = new Pty("exec bash --norc -i", { env: { ...env, PS1: "PROMPT " } });
    await pty.shows(/PROMPT/);
    pty.type(`source <(gpunode completion bash)\n`);
    await pty.shows(/bash\)\nPROMPT/);
    pty.type("gpunode lo\t");
    await pty.shows(/PROMPT gpunode logs$/m);
    pty.type("tr\t");
    await pty.shows(/PROMPT gpunode logs train-1$/m);
    pty.type("--ta\t5 --config=/etc/pass\t");
    await pty.shows(/PROMPT gpunode logs train-1 --tail 5 --config=\/etc\/passwd/);
    pty.type("\x15exit\n");
    await pty.ended;
  });
});

describe("zsh", () => {
  it("completes as one types", async ({ skip }) => {
    const tool = await debianTool("zsh");
    if (tool === undefined) return skip("there is no zsh");
    const { env, dir } = await machine();
    const zsh = tool.paths.zsh ?? "";
    // An unpacked zsh does not find its own functions and modules.
    const unpacked = zsh.replace(/\/(?:usr\/)?bin\/zsh$/, "");
    writeFileSync(
      join(dir, ".zshrc"),
      `[[ -d ${unpacked}/usr/share/zsh/functions ]] && fpath=(${unpacked}/usr/share/zsh/functions ${unpacked}/usr/share/zsh/functions/**/*(/N))
module_path=(${unpacked}/usr/lib/*/zsh/*(/N) $module_path)
fpath=(${root}/completions $fpath)
autoload -U compinit; compinit -u -D
PROMPT='PROMPT '
`,
    );
    await using pty = new Pty(`exec ${zsh} -i`, {
      columns: 100,
      env: { ...env, ...tool.env, PATH: env.PATH, ZDOTDIR: dir },
    });
    await pty.shows(/PROMPT/);
    pty.type("gpunode sta\t--wa\t");
    await pty.shows(/PROMPT gpunode status --watch$/m);
    pty.type("\x15gpunode logs tr\t");
    await pty.shows(/PROMPT gpunode logs train-1$/m);
    pty.type("\x15gpunode logs \t");
    await pty.shows(/^bad +-- failed, ghcr\.io\/me\/none:1\ntrain-1 +-- running, ghcr\.io\/me\/train:1$/m);
    pty.type("\x15gpunode run --log-level=w\t");
    await pty.shows(/PROMPT gpunode run --log-level=warn$/m);
    pty.type("\x15gpunode coordinator tok\tcr\t--us\t");
    await pty.shows(/PROMPT gpunode coordinator token create --uses=$/m);
    pty.type("\x15exit\n");
    await pty.ended;
  });
});

describe("fish", () => {
  it("offers what there is where it is, with what it does", async ({ skip }) => {
    const tool = await debianTool("fish");
    if (tool === undefined) return skip("there is no fish");
    const { env, dir } = await machine();
    const words = (line: string) =>
      written(
        tool.paths.fish ?? "",
        ["--no-config", "-c", `source ${root}/completions/gpunode.fish; complete -C '${line}'`],
        { ...env, ...tool.env, PATH: env.PATH, HOME: dir },
      );
    const bare = async (line: string) => (await words(line)).map((word) => word.split("\t")[0]);
    expect(await words("gpunode sta")).toEqual(["status\tshow this node: GPUs, workloads, connection, problems"]);
    expect(await bare("gpunode status --")).toEqual(["--config", "--help", "--json", "--watch"]);
    expect(await words("gpunode logs ")).toEqual([
      "bad\tfailed, ghcr.io/me/none:1",
      "train-1\trunning, ghcr.io/me/train:1",
    ]);
    expect(await words("gpunode reclaim --gpu ")).toEqual([
      "0\tNVIDIA H100 80GB HBM3, train-1",
      "1\tNVIDIA H100 80GB HBM3",
    ]);
    expect(await bare("gpunode run --name status --log-level w")).toEqual(["warn"]);
    expect(await words("gpunode coordinator logs -t")).toEqual([]);
    expect(await bare("gpunode coordinator token ")).toEqual(["create", "help"]);
  });
});

describe("the words a shell asks for", () => {
  it("silence and exit code 0, whatever is wrong", async () => {
    const quiet = { code: 0, out: "", err: "" };
    expect(await gpunode(["__complete", "workload"], { GPUNODE_RUN_DIR: scratch() })).toEqual(quiet);
    expect(await gpunode(["__complete", "workload", "--config", "/no/such/file"])).toEqual(quiet);
    const broken = join(scratch(), "config.toml");
    writeFileSync(broken, "run_dir = 5\n");
    expect(await gpunode(["__complete", "gpu", "--config", broken])).toEqual(quiet);
  });

  it("help does not tell of them, and names the shells", async () => {
    expect((await gpunode(["--help"])).out).not.toContain("__complete");
    const { code, err } = await gpunode(["completion", "tcsh"]);
    expect(code).toBe(2);
    expect(err).toContain("Allowed choices are bash, zsh, fish");
  });
});
