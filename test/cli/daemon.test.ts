import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { node, outcome, scratch, start } from "./gpunode.ts";

/** A process with the daemon's frame around an agent of the test, told to stop by signals like any other. */
function daemonWith(agent: string, env: Record<string, string> = {}, stopWithinMs = 25_000) {
  const program = `
    import { once } from "node:events";
    import { createLog } from "./src/cli/log.ts";
    import { runDaemon } from "./src/cli/daemon.ts";
    import { loadConfig } from "./src/config/load.ts";
    import { ConfigError } from "./src/config/problem.ts";
    const log = createLog({ level: "info", format: "auto" }, process.stdout);
    const agent = async (config, { signal, onReady }) => { ${agent} };
    const config = await loadConfig({ env: {} });
    process.exit(await runDaemon(agent, config, { log, version: "1", stopWithinMs: ${stopWithinMs} }));
  `;
  return start(node, ["--input-type=module", "-e", program], env);
}

/** Waits for the agent's word that it is up. */
async function up(child: ReturnType<typeof start>): Promise<void> {
  await once(child.stderr as NodeJS.ReadableStream, "data");
}

const UNTIL_ABORTED =
  'onReady(); console.error("up"); const idle = setInterval(() => {}, 1000); await once(signal, "abort");';

it.each(["SIGTERM", "SIGINT"] as const)("%s is a clean end with exit code 0", async (signal) => {
  const child = daemonWith(`${UNTIL_ABORTED} clearInterval(idle);`);
  const result = outcome(child);
  await up(child);
  child.kill(signal);
  const { code, out } = await result;
  expect(code).toBe(0);
  const lines = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines).toMatchObject([
    { level: "info", signal, msg: "stopping; a second signal ends at once" },
    { level: "info", msg: expect.stringMatching(/what runs goes on.*"gpunode drain"/) },
    { level: "info", msg: "stopped" },
  ]);
});

it("a second signal ends at once; the same Ctrl-C arriving twice does not", async () => {
  const child = daemonWith(`${UNTIL_ABORTED} await new Promise(() => {});`);
  const result = outcome(child);
  await up(child);
  child.kill("SIGINT");
  await sleep(20);
  child.kill("SIGINT");
  await sleep(500);
  expect(child.exitCode).toBeNull();
  child.kill("SIGINT");
  expect(await result).toMatchObject({ code: 1, out: expect.stringContaining("ending at once") });
});

it("an end that takes too long is cut off with exit code 1", async () => {
  const child = daemonWith(`${UNTIL_ABORTED} await new Promise(() => {});`, {}, 200);
  const result = outcome(child);
  await up(child);
  child.kill("SIGTERM");
  expect(await result).toMatchObject({ code: 1, out: expect.stringContaining("could not end cleanly in time") });
});

it("an agent that cannot go on says so: 78 for its configuration, 1 for the rest", async () => {
  expect(await outcome(daemonWith('throw new ConfigError(["ca_file /x: there is no such file"]);'))).toMatchObject({
    code: 78,
    out: expect.stringContaining('"msg":"ca_file /x: there is no such file"'),
  });
  expect(await outcome(daemonWith('throw new Error("the disk is gone");'))).toMatchObject({
    code: 1,
    out: expect.stringContaining("gpunode cannot go on: the disk is gone"),
  });
});

it("tells systemd when it is ready and when it stops, and nobody where systemd did not start it", async () => {
  const dir = scratch();
  const told = join(dir, "told");
  writeFileSync(join(dir, "systemd-notify"), `#!/bin/sh\necho "$@" >> ${told}\n`);
  chmodSync(join(dir, "systemd-notify"), 0o755);
  const env = { PATH: `${dir}:${process.env.PATH}` };
  for (const [more, expected] of [
    [
      { NOTIFY_SOCKET: "/run/some/socket" },
      /^READY=1 STATUS=running\nSTOPPING=1 STATUS=stopping: what runs goes on.*\n$/,
    ],
    [{ NOTIFY_SOCKET: "" }, undefined],
  ] as const) {
    const child = daemonWith(
      `${UNTIL_ABORTED} await new Promise((done) => setTimeout(done, 300)); clearInterval(idle);`,
      {
        ...env,
        ...more,
      },
    );
    const result = outcome(child);
    await up(child);
    await sleep(200);
    child.kill("SIGTERM");
    expect((await result).code).toBe(0);
    if (expected === undefined) break;
    expect(readFileSync(told, "utf8")).toMatch(expected);
    writeFileSync(told, "");
  }
  expect(existsSync(told) && readFileSync(told, "utf8")).toBe("");
});
