import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Coordinator, startCoordinator } from "../../src/coordinator/server.ts";
import { type BootedSystemd, bootSystemd, canBootSystemd } from "../support/booted-systemd.ts";
import { engineIsPrivate, engineSocket, haveEngine } from "../support/engine.ts";
import { atTerminal, haveTerminal } from "../support/terminal.ts";

const INSTALLATION = "/opt/gpunode";
const NODE = "/usr/local/bin/node";
const TOKEN = "t0ken-nobody-may-see";
const PATIENCE_MS = 180_000;

/** As an owner may have written it who has not enrolled yet. */
const CONFIG = `# the rig in the garage
name = "booted" # painted on it

nvidia = { smi = "${INSTALLATION}/bin/nvidia-smi-sim.js", simulated = ${!engineIsPrivate} }
network = { isolate_lan = false }
[policy]
allow_root = true
`;

describe.runIf(canBootSystemd && haveEngine)("a provider's first hour, on a machine with systemd", () => {
  const rooms = new AsyncDisposableStack();
  let machine: BootedSystemd;
  let coordinator: Coordinator;

  const gpunode = (...args: string[]) => machine.attempt(NODE, `${INSTALLATION}/bin/gpunode.js`, ...args);
  const enroll = (...args: string[]) => gpunode("enroll", "--coordinator", coordinator.url, ...args);

  async function open(): Promise<Coordinator> {
    const stateDir = mkdtempSync(join(tmpdir(), "gpunode-enroll-"));
    rooms.defer(() => rmSync(stateDir, { recursive: true, force: true }));
    const listen = { host: "127.0.0.1", port: 0 };
    const started = await startCoordinator({ listen, stateDir, joinTokens: [TOKEN], joinTokenUses: 1 });
    rooms.defer(() => started.close());
    return started;
  }

  beforeAll(async () => {
    coordinator = await open();
    machine = await bootSystemd([
      { from: resolve(import.meta.dirname, "../.."), to: INSTALLATION },
      { from: process.execPath, to: NODE },
      { from: engineSocket(), to: "/run/docker.sock", writable: true },
    ]);
    rooms.defer(() => machine[Symbol.asyncDispose]());
    await machine.run("groupadd", "--non-unique", "--gid", String(statSync(engineSocket()).gid), "docker");
    await machine.write("/etc/gpunode/config.toml", CONFIG);
    const environment = "[Service]\nEnvironment=GPUNODE_SIM_SCENARIO=rtx4090x2\n";
    await machine.write("/etc/systemd/system/gpunode.service.d/simulated.conf", environment);
    await machine.write("/root/wrong", "not-the-token\n");
    await machine.write("/root/token", `${TOKEN}\n`);
  }, PATIENCE_MS);

  afterAll(async () => {
    await rooms.disposeAsync();
    expect(machine.leftovers()).toEqual([]);
  }, PATIENCE_MS);

  test("without root it is told what to run", async () => {
    const as = ["--reuid=65534", "--regid=65534", "--clear-groups", NODE, `${INSTALLATION}/bin/gpunode.js`];
    const { code, stderr } = await machine.attempt("setpriv", ...as, "enroll");
    expect(code).toBe(1);
    expect(stderr).toBe(
      'gpunode: /etc/gpunode/config.toml cannot be written by this user: run "sudo gpunode enroll"\n',
    );
  });

  test("before the service is installed the files are written, and installing makes the service able to read them", async () => {
    const { code, stdout, stderr } = await enroll("--token-file", "/root/wrong");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(
      'The service is not installed yet: "sudo gpunode service install" installs and starts it.',
    );
    expect(await machine.run("stat", "--format=%a %U:%G", "/etc/gpunode/join-token")).toBe("600 root:root");
    const installed = await gpunode("service", "install");
    expect(installed.code).toBe(0);
    expect(installed.stdout).toContain("let the service read /etc/gpunode/join-token");
    expect(await machine.run("stat", "--format=%a %U:%G", "/etc/gpunode/join-token")).toBe("640 root:gpunode");
  });

  test("a token that is refused is told, and by which word of the coordinator", async () => {
    const { code, stdout, stderr } = await enroll("--token-file", "/root/wrong");
    expect(code).toBe(1);
    expect(stdout).toContain("systemctl restart gpunode.service");
    expect(stderr).toMatch(
      /the configuration is written, but the coordinator refuses this node: the join token is not valid here/,
    );
  });

  test.runIf(haveTerminal)(
    "at a terminal another token is asked for, until the node is connected; all else of the configuration stays",
    async () => {
      const [program = "", ...args] = machine.commandLine(NODE, `${INSTALLATION}/bin/gpunode.js`, "enroll");
      const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C.UTF-8", NO_COLOR: "1" };
      await using person = atTerminal([program, ...args].join(" "), { cwd: "/", env });
      await person.until(`This machine is set up for ${coordinator.url} already, and is not connected.`);
      await person.until("Enrol it anew? [y/N] ");
      person.type("y\n");
      await person.until(`Coordinator [${coordinator.url}]: `);
      person.type("\n");
      await person.until("it speaks gpunode.v1");
      await person.until("Join token");
      person.type("wrong-again\n");
      await person.until("What it is called there [booted]: ");
      person.type("\n");
      await person.until("Do that? [Y/n] ");
      person.type("y\n");
      await person.until("the coordinator refuses this node");
      await person.until("Another join token");
      person.type(`${TOKEN}\n`);
      await person.until("It is connected.");
      await person.until(`coordinator  ${coordinator.url}/v1/agent connected for`);
      await person.until("What now");
      expect(await person.ended).toBe(0);
      expect(person.shown).not.toContain(TOKEN);
      expect(await machine.run("cat", "/etc/gpunode/config.toml")).toBe(
        `${CONFIG}\n[coordinator]\nurl = "${coordinator.url}"\njoin_token_file = "/etc/gpunode/join-token"`,
      );
      expect(await machine.run("stat", "--format=%a %U:%G", "/etc/gpunode/join-token")).toBe("640 root:gpunode");
      expect(await machine.run("systemctl", "is-enabled", "gpunode.service")).toBe("enabled");
      // Nothing half-written is left beside them.
      expect(await machine.run("ls", "-A", "/etc/gpunode")).toBe("config.toml\njoin-token");
    },
    PATIENCE_MS,
  );

  test("the same again is no harm, and another coordinator is taken on its word only", async () => {
    const again = await enroll("--without-token");
    expect(again.code, again.stderr).toBe(0);
    expect(again.stdout).toMatch(/already, and is connected to it\.[\s\S]*It is connected\./);
    const other = await open();
    const refused = await gpunode("enroll", "--coordinator", other.url, "--token-file", "/root/token");
    expect(refused.code).toBe(2);
    const changed = await gpunode("enroll", "--coordinator", other.url, "--token-file", "/root/token", "--yes");
    expect(changed.code, changed.stderr).toBe(0);
    expect(changed.stdout).toContain(`${other.url}/v1/agent connected for`);
  });

  test.runIf(haveTerminal)("Ctrl-C while it waits leaves whole files and the service as it is", async () => {
    const command = ["enroll", "--coordinator", "ws://127.0.0.1:1", "--without-token", "--no-check"];
    const [program = "", ...args] = machine.commandLine(NODE, `${INSTALLATION}/bin/gpunode.js`, ...command);
    const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C.UTF-8", NO_COLOR: "1" };
    await using person = atTerminal([program, ...args].join(" "), { cwd: "/", env });
    await person.until("Change that to ws://127.0.0.1:1? [y/N] ");
    person.type("y\n");
    await person.until("What it is called there");
    person.type("\n");
    await person.until("Do that? [Y/n] ");
    person.type("\n");
    await person.until("Waiting until it is connected");
    person.type("\x03");
    await person.until('interrupted; what was written stays: "gpunode status" shows how it goes');
    expect(await person.ended).toBe(130);
    expect(await machine.run("cat", "/etc/gpunode/config.toml")).toBe(
      `${CONFIG}\n[coordinator]\nurl = "ws://127.0.0.1:1"`,
    );
    expect(await machine.run("ls", "-A", "/etc/gpunode")).toBe("config.toml\njoin-token");
    expect(await machine.run("systemctl", "is-active", "gpunode.service")).toBe("active");
    // The rest of the time is not waited for where nothing comes of it.
    const late = await gpunode(
      "enroll",
      "--coordinator",
      "ws://127.0.0.1:1",
      "--without-token",
      "--no-check",
      "--wait-seconds",
      "1",
    );
    expect(late.code).toBe(1);
    expect(late.stderr).toMatch(
      /written, but it is not connected yet: nobody listens there.*The service goes on trying/,
    );
  });

  test("its log reads as sentences, by priority, in journalctl and in gpunode logs", async () => {
    const journal = (...args: string[]) =>
      machine.run("journalctl", "--unit=gpunode.service", "--output=cat", "--no-pager", ...args);
    expect(await journal("--priority=warning")).toMatch(
      /^the coordinator cannot be reached: the coordinator refuses this node: .*"gpunode enroll" gives this node another join token.* coordinator=ws:/m,
    );
    expect(await journal("--priority=warning")).not.toMatch(/is up: 2 GPUs/);
    expect(await journal()).toMatch(/^gpunode \S+ is up: 2 GPUs, node booted node=[a-z2-7]{26} gpus=2$/m);
    expect(await journal()).not.toMatch(/^<\d>|^\{/m);
    const { code, stdout } = await gpunode("logs", "-n", "300");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info {2}gpunode \S+ is up: 2 GPUs/m);
    expect(stdout).toMatch(/^\S+ \S+ warn {2}the coordinator cannot be reached/m);
  });

  test("a support bundle has its log, its unit and its state, and no token", async () => {
    await machine.write(
      "/etc/systemd/system/gpunode.service.d/token.conf",
      `[Service]\nEnvironment=SOME_TOKEN=${TOKEN}\n`,
    );
    await machine.run("systemctl", "daemon-reload");
    const made = await gpunode("support-bundle", "--output", "/root/bundle.tar.gz");
    expect({ code: made.code, stderr: made.stderr }).toEqual({ code: 0, stderr: "" });
    expect(await machine.run("stat", "--format=%a", "/root/bundle.tar.gz")).toBe("600");
    const contents = await machine.run("tar", "-xzOf", "/root/bundle.tar.gz");
    expect(contents).not.toContain(TOKEN);
    expect(contents).toMatch(/gpunode\[\d+\]: gpunode \S+ is up: 2 GPUs/);
    expect(contents).toContain("Environment=SOME_TOKEN=[hidden]");
    expect(contents).toMatch(/^ActiveState=active$/m);
    expect(contents).toMatch(/"key": "coordinator\.url",\s+"value": "ws:/);
    expect(contents).toMatch(/ identity\.pem$/m);
    // The service goes on as if nobody had looked.
    expect(await machine.run("systemctl", "is-active", "gpunode.service")).toBe("active");
  });
});
