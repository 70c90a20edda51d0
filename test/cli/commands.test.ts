import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { type LocalActions, startLocalApi } from "../../src/local/server.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import { socketPathIn } from "../../src/local/socket-path.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { noActions } from "../local/no-actions.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";
import { gpunode, node, outcome, scratch, start } from "./gpunode.ts";

/** A daemon's local door, and the environment that leads the commands to it. */
async function daemon(actions: Partial<LocalActions> = {}, snapshot: () => Snapshot = exampleSnapshot) {
  const runDir = scratch();
  const api = await startLocalApi({
    socketPath: socketPathIn(runDir),
    snapshot,
    actions: { ...noActions, ...actions },
    log: { debug() {}, info() {}, error() {} },
  });
  onTestFinished(() => Promise.resolve(api[Symbol.asyncDispose]()));
  return { GPUNODE_RUN_DIR: runDir };
}

describe("status", () => {
  it("tells a person all of it", async () => {
    const { code, out, err } = await gpunode(["status"], await daemon());
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^node +rig-01 is available {2}gpunode 0\.1\.0, up 3 h 4 min, pid \d+$/m);
    expect(out).toMatch(/^coordinator +wss:\/\/coordinator\.example connected for 2 h 4 min {2}2 events to deliver$/m);
    expect(out).toMatch(/^host +64 CPUs 13 % busy, memory 97\.7\/503 GiB, disk 879 GiB free, docker 27\.3\.1$/m);
    expect(out).toMatch(/^ +0 {2}NVIDIA H100 80GB HBM3 +40\.0\/79\.6 GiB +93 % +61 °C +512 W +healthy +train-1$/m);
    expect(out).toMatch(/^ +1 {2}NVIDIA H100 80GB HBM3 +79\.6 GiB +- +- +- +degraded$/m);
    expect(out).toMatch(/^ +MIG 1g\.10gb +9\.6 GiB +small$/m);
    expect(out).toMatch(
      /^train-1 +running +1 h +0 +150 % +2\.0 GiB +ghcr\.io\/me\/train:1 +restarted 1 ×, 30000→8080$/m,
    );
    expect(out).toMatch(/^ {2}GPU 1 is degraded: 3 uncorrected memory errors$/m);
    expect(out).toMatch(/^ {2}less than 5 GiB are free \(for 4 min\)$/m);
    expect(out).toMatch(/^Last error, 2 h 5 min ago: the coordinator closed the session$/m);
    // What others wrote cannot clear the owner's screen.
    expect(out).not.toContain("\u001b");
  });

  it("--json is the snapshot, complete", async () => {
    const { out } = await gpunode(["status", "--json"], await daemon());
    expect(JSON.parse(out)).toEqual({ ...exampleSnapshot(), node: { ...exampleSnapshot().node, pid: process.pid } });
  });

  it("says why there is no connection and when it is tried again", async () => {
    const off = { state: "off", since: "2026-01-02T00:00:00.000Z", unackedEvents: 0 } as const;
    const waiting = {
      ...off,
      url: "wss://c",
      state: "waiting",
      lastError: "connection refused",
      retryAt: "2026-01-02T03:04:17.000Z",
    } as const;
    let connection: Snapshot["connection"] = waiting;
    const env = await daemon({}, () => ({ ...exampleSnapshot(), connection, gpus: [], workloads: [], problems: [] }));
    expect((await gpunode(["status"], env)).out).toMatch(
      /^coordinator +wss:\/\/c not connected for 3 h 4 min: connection refused, next try in 12 s$/m,
    );
    connection = off;
    const { out } = await gpunode(["status"], env);
    expect(out).toMatch(/^coordinator +none configured \(coordinator\.url\)$/m);
    expect(out).toContain("No GPU is in sight.\n\nNo workloads.\n");
  });

  it("says in one line what the node has proved to be like, and nothing while nothing is known", async () => {
    let reliability: NonNullable<Snapshot["reliability"]> = {
      since: "2025-12-04T00:00:00.000Z",
      upSeconds: 2_500_000,
      downSeconds: 5000,
      workloads: { succeeded: 12, failed: 1, stopped: 3, preempted: 2, lost: 1 },
      preemptions: [{ cause: "owner", count: 2, noticeSeconds: { min: 10, p50: 10 } }],
    };
    const env = await daemon({}, () => ({ ...exampleSnapshot(), reliability }));
    expect((await gpunode(["status"], env)).out).toMatch(
      /^30 days +up 99\.8 %, 12 done, 1 failed, 3 stopped, 2 taken back, 1 lost$/m,
    );
    const workloads = { succeeded: 0, failed: 0, stopped: 0, preempted: 0, lost: 0 };
    reliability = { since: "2026-01-02T00:00:00.000Z", upSeconds: 11_045, downSeconds: 0, workloads, preemptions: [] };
    expect((await gpunode(["status"], env)).out).toMatch(/^30 days +up 100 %, 0 done {2}known for 3 h 4 min$/m);
    // Within the first hour a share of the time says nothing; what ended does.
    reliability = { ...reliability, since: "2026-01-02T02:30:00.000Z", upSeconds: 2045 };
    expect((await gpunode(["status"], env)).out).not.toContain("30 days");
    reliability = { ...reliability, workloads: { ...workloads, succeeded: 2, preempted: 1 } };
    expect((await gpunode(["status"], env)).out).toMatch(/^30 days +2 done, 1 taken back$/m);
    expect((await gpunode(["status"], await daemon())).out).not.toContain("30 days");
  });

  it("says where the page is, where there is one", async () => {
    const env = await daemon({}, () => ({ ...exampleSnapshot(), page: "http://127.0.0.1:9835/" }));
    expect((await gpunode(["status"], env)).out).toMatch(/^page {9}http:\/\/127\.0\.0\.1:9835\/$/m);
    expect((await gpunode(["status"], await daemon())).out).not.toMatch(/^page /m);
  });

  it("says who wants a GPU and who is still on it, for as long as it is there", async () => {
    const shown = exampleSnapshot();
    const [gpu] = shown.gpus;
    const [train] = shown.workloads.filter(({ gpus }) => gpus.includes(gpu?.uuid ?? ""));
    if (gpu === undefined || train === undefined) throw new Error("nobody has GPU 0");
    // With its end begun it holds the GPU no longer, and is not gone yet.
    const { allocatedTo: _, ...free } = gpu;
    shown.gpus[0] = free;
    shown.holds = [{ cause: "owner", message: "taken back by its owner", gpus: [gpu.uuid], since: shown.at }];
    const of = (workload: object) => ({ ...shown, workloads: [{ ...train, ...workload }] });
    const notice = {
      cause: "owner",
      message: "taken back by its owner",
      deadline: "2026-01-02T03:04:45.000Z",
    } as const;
    let now: Snapshot = of({ state: "stopping", notice });
    const env = await daemon({}, () => now);
    const status = async () => (await gpunode(["status"], env)).out;
    expect(await status()).toMatch(/ {2}train-1 → owner$/m);
    expect(await status()).toMatch(/^train-1 +stopping .* gone in 40 s: taken back by its owner/m);
    now = of({ state: "running", notice: { cause: "cloud_notice", message: "it may go" } });
    expect(await status()).toMatch(/^train-1 +running .* warned: it may go/m);
    now = of({ state: "preempted", finishedAt: shown.at });
    expect(await status()).toMatch(/ {2}owner$/m);
  });

  it("--watch goes on until Ctrl-C, and says so when the daemon leaves", async () => {
    const runDir = scratch();
    const door = await startLocalApi({
      socketPath: socketPathIn(runDir),
      snapshot: exampleSnapshot,
      actions: noActions,
      log: { debug() {}, info() {}, error() {} },
    });
    const child = start(node, ["src/cli/main.ts", "status", "--watch"], { GPUNODE_RUN_DIR: runDir });
    const stdout = child.stdout as NodeJS.ReadableStream;
    let seen = "";
    stdout.on("data", (chunk) => {
      seen += chunk;
    });
    while ((seen.match(/^node /gm) ?? []).length < 2) await once(stdout, "data");
    await door[Symbol.asyncDispose]();
    while (!seen.includes("the daemon is not running")) await once(stdout, "data");
    const exited = once(child, "exit");
    child.kill("SIGINT");
    expect(await exited).toEqual([0, null]);
  });

  it("no daemon: exit code 3, and one sentence with the socket and the remedy", async () => {
    const runDir = scratch();
    const { code, out, err } = await gpunode(["status"], { GPUNODE_RUN_DIR: runDir });
    expect({ code, out }).toEqual({ code: 3, out: "" });
    expect(err).toBe(
      `gpunode: the daemon is not running: there is no socket ${runDir}/gpunode.sock. Start it with "sudo systemctl start gpunode", or here with "gpunode run".\n`,
    );
  });

  it("finds the daemon through --config too", async () => {
    const { GPUNODE_RUN_DIR } = await daemon();
    const file = join(scratch(), "config.toml");
    writeFileSync(file, `run_dir = "${GPUNODE_RUN_DIR}"\n`);
    expect((await gpunode(["workloads", "--config", file, "--json"])).out).toBe(
      `${JSON.stringify(exampleSnapshot().workloads, undefined, 2)}\n`,
    );
  });
});

it("workloads shows the table alone", async () => {
  const { code, out } = await gpunode(["workloads"], await daemon());
  expect(code).toBe(0);
  expect(out.split("\n").map((line) => line.split(/ +/)[0])).toEqual(["WORKLOAD", "train-1", "bad", ""]);
});

it("logs writes both streams where they belong, and passes its options on", async () => {
  const asked: unknown[] = [];
  const env = await daemon({
    async *logs(id, { signal: _signal, ...options }) {
      asked.push({ id, ...options });
      yield { stream: "stdout", data: Buffer.from([0x6f, 0x6b, 0xff, 0x0a]) };
      yield { stream: "stderr", data: Buffer.from("warning\n") };
    },
  });
  const child = start(node, ["src/cli/main.ts", "logs", "train-1", "-f", "--tail", "5"], env);
  const parts: Buffer[] = [];
  child.stdout?.on("data", (part: Buffer) => parts.push(part));
  const { code, err } = await outcome(child);
  expect({ code, err }).toEqual({ code: 0, err: "warning\n" });
  expect(Buffer.concat(parts)).toEqual(Buffer.from([0x6f, 0x6b, 0xff, 0x0a]));
  expect(asked).toEqual([{ id: "train-1", follow: true, tail: 5 }]);
});

it("what the daemon refuses is exit code 1 and its sentence", async () => {
  const env = await daemon({
    logs() {
      throw new GpunodeError("unknown_workload", 'this node has no workload "nobody"');
    },
  });
  expect(await gpunode(["logs", "nobody"], env)).toEqual({
    code: 1,
    out: "",
    err: 'gpunode: this node has no workload "nobody"\n',
  });
});

it("drain, reclaim and resume reach the daemon, and say who else keeps what", async () => {
  const asked: unknown[] = [];
  const kept = {
    cause: "schedule" as const,
    message: "not lent before 18:00",
    since: "2026-01-02T03:04:05.000Z",
    until: "2026-01-02T18:00:00.000Z",
  };
  const answer = (holds: (typeof kept)[]) => (options: object) => {
    asked.push(options);
    return { holds };
  };
  const env = await daemon({ drain: answer([]), reclaim: answer([]), resume: answer([kept]) });
  expect((await gpunode(["drain", "--grace-seconds", "5"], env)).out).toMatch(/^Draining: /);
  const reclaimed = await gpunode(["reclaim", "--gpu", "1", "--for", "1.5h", "--no-wait"], env);
  expect(reclaimed.out).toMatch(/^Taking back GPU 1 until (\d{4}-\d\d-\d\d )?\d\d:\d\d\.\n$/);
  expect((await gpunode(["resume"], env)).out).toMatch(
    /^Still kept from being lent:\n {2}The whole node: not lent before 18:00, until (2026-01-02 )?\d\d:00\n$/,
  );
  expect(JSON.parse((await gpunode(["resume", "--gpu", "1", "--json"], env)).out)).toEqual({
    state: "draining",
    holds: [kept],
  });
  expect(asked).toEqual([{ graceSeconds: 5 }, { gpus: ["1"], forMs: 5_400_000 }, {}, { gpus: ["1"] }]);
});

it.each([
  ["--for", "tomorrow", "--for tomorrow: expected a length such as 90m, 2h or 1d"],
  ["--for", "0h", "--for 0: expected a length above zero"],
  ["--grace-seconds", "-1", "--grace-seconds -1: expected a whole number"],
])("reclaim refuses %s %s", async (flag, value, message) => {
  const env = await daemon();
  expect(await gpunode(["reclaim", `${flag}=${value}`], env)).toEqual({
    code: 2,
    out: "",
    err: `gpunode: ${message}\n`,
  });
});

describe("config", () => {
  it("show: every value, where it was set, and no secret", async () => {
    const file = join(scratch(), "config.toml");
    writeFileSync(file, 'name = "rig"\n[coordinator]\njoin_token = "t0ps3cret"\n', { mode: 0o600 });
    const { code, out } = await gpunode(["config", "show", "--config", file], { GPUNODE_LOG_LEVEL: "warn" });
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^name +"rig" +${file}$`, "m"));
    expect(out).toMatch(/^log\.level +"warn" +GPUNODE_LOG_LEVEL$/m);
    expect(out).toMatch(/^policy\.host_ports +"30000-30999" +default$/m);
    expect(out).toMatch(/^coordinator\.join_token +\[hidden\] /m);
    const json = (await gpunode(["config", "show", "--json", "--config", file])).out;
    expect(JSON.parse(json).settings).toContainEqual({
      key: "coordinator.join_token",
      value: "[hidden]",
      source: file,
    });
    expect(out + json).not.toContain("t0ps3cret");
  });

  it("check: right, or each problem with its line and exit code 78", async () => {
    const file = join(scratch(), "config.toml");
    writeFileSync(file, 'name = "rig"\n');
    expect(await gpunode(["config", "check", "--config", file], { GPUNODE_NAM: "x" })).toEqual({
      code: 0,
      out: `${file}: right\n`,
      err: "gpunode: warning: the environment variable GPUNODE_NAM means nothing to gpunode; did you mean GPUNODE_NAME?\n",
    });
    writeFileSync(file, '[policy]\nmax_worloads = 3\n[log]\nlevel = "x"\n');
    const { code, err } = await gpunode(["config", "check", "--config", file]);
    expect(code).toBe(78);
    expect(err.split("\n").slice(0, 2)).toEqual([
      `gpunode: ${file}:2: unknown key "policy.max_worloads"; did you mean "max_workloads"?`,
      expect.stringContaining(`gpunode: ${file}:4: log.level = "x": expected one of`),
    ]);
    expect((await gpunode(["status", "--config", file])).code).toBe(78);
    expect((await gpunode(["run", "--config", file])).code).toBe(78);
  });

  it("check reads the join token's file as the daemon will", async () => {
    const dir = scratch();
    const [file, token] = [join(dir, "config.toml"), join(dir, "token")];
    writeFileSync(file, `[coordinator]\njoin_token_file = "${token}"\n`);
    const { code, err } = await gpunode(["config", "check", "--config", file]);
    expect(code).toBe(78);
    expect(err).toContain(`coordinator.join_token_file ${token}: there is no such file`);
  });
});

describe("usage", () => {
  it.each([[["statu"]], [["status", "--frobnicate"]], [["logs", "x", "--tail", "many"]], [[]]])(
    "%j is exit code 2",
    async (args) => {
      const { code, err } = await gpunode(args);
      expect(code).toBe(2);
      expect(err).not.toBe("");
    },
  );

  it("help and version are no errors", async () => {
    const help = await gpunode(["--help"]);
    expect(help.code).toBe(0);
    expect(help.out).toContain(
      "Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon is not running, 78 bad configuration, 130 interrupted.",
    );
    expect(await gpunode(["--version"])).toEqual({ code: 0, out: "0.1.0\n", err: "" });
    expect((await gpunode(["run", "--help"])).out).toContain("--coordinator <url>");
  });
});
