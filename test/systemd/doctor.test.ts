import { expect, test } from "vitest";
import type { Report } from "../../src/doctor/report.ts";
import { patiently } from "../agent/rig.ts";
import { canBootSystemd } from "../support/booted-systemd.ts";
import { haveEngine } from "../support/engine.ts";
import { NodeAsAService } from "./node-as-a-service.ts";

const CONFIG = "/etc/gpunode/config.toml";
const NODE = "/usr/local/bin/node";

/** Leads to the machine's engine from a socket that belongs to a group of its own, as an installed Docker's does. */
const RELAY = `
const { chmodSync } = require("node:fs");
const { connect, createServer } = require("node:net");
createServer((near) => {
  const far = connect("/run/docker.sock");
  far.on("error", () => near.destroy());
  near.on("error", () => far.destroy());
  near.pipe(far).pipe(near);
}).listen("/run/engine.sock", () => chmodSync("/run/engine.sock", 0o660));`;

test.runIf(haveEngine && canBootSystemd)(
  "gpunode doctor finds a service that was tampered with, and --fix puts it right",
  { timeout: 240_000 },
  async () => {
    await using node = await NodeAsAService.install();
    const { machine } = node;
    const doctor = async (...args: string[]) => {
      const command = [NODE, "/opt/gpunode/bin/gpunode.js", "doctor", "--no-containers", ...args];
      return await machine.attempt("env", "GPUNODE_SIM_SCENARIO=rtx4090x2", ...command);
    };
    const look = async (...ids: string[]) => {
      const { checks } = JSON.parse((await doctor("--json", ...ids)).stdout) as Report;
      return Object.fromEntries(checks.map(({ id, verdict, found }) => [id, `${verdict}: ${found}`]));
    };
    const own = ["config", "service", "daemon", "engine-access", "state-dir", "kernel-log", "oom-score", "platform"];
    expect(await look(...own, "coordinator-session")).toEqual({
      config: "ok: /etc/gpunode/config.toml",
      service: "ok: enabled, active",
      daemon: expect.stringMatching(/^ok: gpunode .* is available/) as string,
      "engine-access": "ok: gpunode may use /var/run/docker.sock",
      "state-dir": "ok: /var/lib/gpunode is gpunode's alone",
      "kernel-log": expect.stringMatching(/^(ok|warning)/) as string,
      "oom-score": "ok: it has 0 points",
      platform: expect.stringMatching(/^ok: Debian/) as string,
      "coordinator-session": expect.stringMatching(/^ok: connected since/) as string,
    });

    await machine.run("chmod", "0755", "/var/lib/gpunode");
    await node.systemctl("disable", "gpunode.service");
    await machine.run("groupadd", "--gid", "4711", "engine");
    await machine.run("systemd-run", "--property=Group=engine", "--unit=relay", NODE, "-e", RELAY);
    await patiently(async () => (await machine.attempt("test", "-S", "/run/engine.sock")).code === 0 || undefined);
    await machine.run("sed", "-i", '$a docker = { socket = "/run/engine.sock" }', CONFIG);
    await machine.write("/etc/systemd/logind.conf.d/idle.conf", "[Login]\nIdleAction=suspend\n");
    await machine.run("chmod", "0600", CONFIG);
    await machine.run("chown", "root:root", CONFIG);
    const tampered = ["config", "service", "engine-access", "state-dir", "sleep"];
    expect(await look(...tampered)).toEqual({
      config: "failure: gpunode, as whom the daemon runs, may not read /etc/gpunode/config.toml",
      service: "warning: the service does not start at boot",
      "engine-access": expect.stringMatching(
        /^failure: gpunode may not use \/run\/engine\.sock \(group engine, mode 0660\)/,
      ) as string,
      "state-dir": "warning: /var/lib/gpunode has mode 0755",
      sleep: "warning: logind's IdleAction is suspend",
    });

    // All but what is only done when it is named.
    const fixed = await doctor("--fix");
    expect(fixed.stdout).toMatch(/^config: chgrp gpunode \/etc\/gpunode\/config\.toml$/m);
    expect(fixed.stdout).toMatch(/^engine-access: usermod -aG engine gpunode$/m);
    expect(fixed.stdout).toMatch(/^service: systemctl enable gpunode$/m);
    expect(fixed.stdout).not.toMatch(/^sleep: /m);
    expect(await machine.run("id", "--groups", "--name", "gpunode")).toBe("gpunode engine");
    expect(await machine.run("stat", "--format=%a %U:%G", CONFIG, "/var/lib/gpunode")).toBe(
      "640 root:gpunode\n700 gpunode:gpunode",
    );
    expect((await machine.attempt("systemctl", "is-enabled", "gpunode.service")).stdout.trim()).toBe("enabled");
    await node.connected();
    expect(await look("sleep")).toEqual({ sleep: "warning: logind's IdleAction is suspend" });
    expect((await doctor("--fix", "sleep")).stdout).toMatch(/^sleep: systemctl mask sleep\.target suspend\.target/m);
    expect((await machine.attempt("systemctl", "is-enabled", "suspend.target")).stdout.trim()).toBe("masked");
    const after = await look(...tampered);
    expect(Object.values(after).filter((words) => !words.startsWith("ok"))).toEqual([]);
    // A second time there is nothing left to do.
    expect((await doctor("--fix", ...tampered)).stdout).toMatch(/^There is nothing to mend/);

    await node.systemctl("stop", "gpunode.service");
    expect(await look("daemon", "service")).toEqual({
      daemon: "failure: the daemon does not run, though its service is installed",
      service: "ok: enabled, inactive",
    });
    await node.ready();
  },
);
