import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";
import { course, patiently } from "../agent/rig.ts";
import { type BootedSystemd, canBootSystemd } from "../support/booted-systemd.ts";
import { docker, engineIsPrivate, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { type Made, makePackages } from "../support/packages.ts";
import { NodeAsAService } from "./node-as-a-service.ts";

const OLD = "1.0.0";
const NEW = "1.0.1";
const CACHE_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
/** Inside, where the packages lie. */
const PACKAGES = "/media/packages";
const SMI = "/usr/local/bin/simulated-smi";
const CONFIG = "/etc/gpunode/config.toml";

/**
 * One machine on which a provider installs, upgrades, restarts, removes and purges. Each test goes on where the one before it ended; the
 * machine has no Node of its own. The engine must be ours: with the package goes the image of the probe, whosever it is.
 */
describe.runIf(haveEngine && engineIsPrivate && canBootSystemd)(
  "the packages, on a booted Debian",
  { timeout: 120_000 },
  () => {
    let made: Made;
    let node: NodeAsAService;
    let machine: BootedSystemd;
    let image: string;
    let firstId: string;
    let number = 0;

    beforeAll(async () => {
      image = await pushImage("systemd/packaged:1", await smallImage());
      made = await makePackages(OLD, NEW);
      const { paths } = await findOrUnpack({ docker: "docker.io" }, { dir: CACHE_DIR, log: console.log });
      const binds = [
        { from: made.dir, to: PACKAGES },
        { from: paths.docker ?? "", to: "/usr/bin/docker" },
      ];
      node = await NodeAsAService.without(binds, { keepsDisk: true });
      machine = node.machine;
      await machine.write(
        SMI,
        '#!/bin/sh\nGPUNODE_SIM_SCENARIO=rtx4090x2 exec "$(dirname "$(readlink -f "$(command -v gpunode)")")/nvidia-smi-sim" "$@"\n',
      );
      await machine.run("chmod", "755", SMI);
    }, 240_000);
    afterAll(async () => {
      await node?.[Symbol.asyncDispose]();
      made?.[Symbol.dispose]();
    }, 60_000);

    const inside = (path: string) => join(PACKAGES, path.slice(made.dir.length));
    const apt = (...args: string[]) =>
      machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "--no-install-recommends", ...args);

    /** A job that runs until it is told to end, with a cache of its own. */
    async function runningJob(): Promise<{ id: string; container: string }> {
      number += 1;
      const id = `packaged-${number}`;
      const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];
      const caches = [{ name: "weights", path: "/cache" }];
      await node.client.submit({ id, image, command, caches, gpus: { count: 1 } });
      return { id, container: String(course(await node.reaches(id, "running")).last.containerId) };
    }

    /** It was told first, and it has ended, and its container is down. */
    async function endedWithNotice(
      { id, container }: { id: string; container: string },
      message: string,
    ): Promise<void> {
      const { events } = await node.client.workload(id);
      const told = events.map(({ kind, state, phase }) => String(kind === "workload" ? state : phase));
      expect(told.filter((word) => ["notice", "preempted"].includes(word))).toEqual(["notice", "preempted"]);
      expect(events.find(({ phase }) => phase === "notice")).toMatchObject({ cause: "host_shutdown", message });
      expect(await isUp(container)).toBe(false);
    }

    const modes = async (...paths: string[]) => (await machine.run("stat", "--format=%a %U:%G", ...paths)).split("\n");

    test("a fresh install runs at once, with nothing to answer and no coordinator", async () => {
      expect((await machine.attempt("sh", "-c", "command -v node")).code).not.toBe(0);
      await apt("install", inside(made.deb(OLD)));
      expect(await node.systemctl("is-enabled", "gpunode.service")).toBe("enabled");
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");
      expect(await machine.run("gpunode", "--version")).toBe(OLD);
      expect(await modes(CONFIG, "/etc/gpunode", "/var/lib/gpunode", "/run/gpunode/gpunode.sock")).toEqual([
        "640 root:gpunode",
        "755 root:root",
        "700 gpunode:gpunode",
        "660 gpunode:gpunode",
      ]);
      expect(await machine.run("gpunode", "config", "check")).toContain(CONFIG);
      // What dpkg put there is what the package says; documents are left out on this machine.
      expect((await machine.attempt("dpkg", "--verify", "gpunode")).stdout).not.toMatch(
        /^(?!.* \/usr\/share\/(?:doc|man)\/).+$/m,
      );
      const { stdout, stderr } = await machine.attempt("systemd-analyze", "verify", "gpunode.service");
      expect(stdout + stderr).toBe("");
    });

    test("the command is for members of the group gpunode", async () => {
      await machine.run("useradd", "--groups=gpunode", "alice");
      await machine.run("useradd", "bob");
      const asks = (user: string) => machine.attempt("runuser", "-u", user, "--", "gpunode", "status");
      expect(await asks("alice")).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("coordinator  none") as string,
      });
      expect((await asks("bob")).code).toBe(3);
      await machine.run("userdel", "alice");
      await machine.run("userdel", "bob");
    });

    test("a second installation is refused in a sentence", async () => {
      const own = await machine.attempt("gpunode", "service", "uninstall");
      expect([own.code, own.stderr]).toEqual([1, expect.stringContaining('"apt remove gpunode" takes it away')]);
      const early = await machine.attempt("gpunode", "service", "cleanup");
      expect([early.code, early.stderr]).toEqual([1, expect.stringContaining("gpunode runs here")]);
      await machine.run("tar", "--extract", `--file=${inside(made.tarball(NEW))}`, "--directory=/opt");
      const other = await machine.attempt(`/opt/gpunode-${NEW}-linux-${process.arch}/gpunode`, "service", "install");
      expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("this machine has the Debian package")]);
    });

    test("an upgrade asks nothing, and leaves the work alone", async () => {
      const config = node.config(SMI);
      await machine.write(CONFIG, config);
      await node.systemctl("restart", "gpunode.service");
      firstId = await node.connected();
      const job = await runningJob();
      const pid = await node.property("MainPID");

      await apt("install", inside(made.deb(NEW)));
      expect(await machine.run("gpunode", "--version")).toBe(NEW);
      await patiently(async () => {
        const now = await node.property("MainPID");
        return now !== pid && now !== "0" && (await node.client.nodes())[0]?.agentVersion === NEW ? now : undefined;
      });
      expect(await node.connected()).toBe(firstId);
      expect(await machine.run("cat", CONFIG)).toBe(config.trimEnd());
      expect(await isUp(job.container)).toBe(true);
      const view = await node.client.workload(job.id);
      expect(view.events.filter(({ kind }) => kind === "preemption")).toEqual([]);
      expect(course(view).states).toEqual(["accepted", "pulling", "starting", "running"]);
      expect(course(view).last).toMatchObject({ containerId: job.container });
      await node.client.release(job.id);
      await node.reaches(job.id, "stopped");
    });

    test("a service that its owner has stopped, or disabled, stays so over an upgrade", async () => {
      await node.systemctl("stop", "gpunode.service");
      await apt("install", "--reinstall", inside(made.deb(NEW)));
      expect(await node.property("ActiveState")).toBe("inactive");
      await node.systemctl("disable", "gpunode.service");
      await apt("install", "--reinstall", inside(made.deb(NEW)));
      expect((await machine.attempt("systemctl", "is-enabled", "gpunode.service")).stdout.trim()).toBe("disabled");
      expect(await node.property("ActiveState")).toBe("inactive");
      await node.systemctl("enable", "--now", "gpunode.service");
      expect(await node.connected()).toBe(firstId);
    });

    test("a reboot ends the work with notice, and the same node comes back", async () => {
      const job = await runningJob();
      await machine.reboot();
      await endedWithNotice(job, "the machine restarts");
      expect(await node.connected()).toBe(firstId);
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");
    });

    test("its removal ends the work with notice; installed again it is the same node", async () => {
      const job = await runningJob();
      await apt("remove", "gpunode");
      await endedWithNotice(job, "the service is stopped");
      expect(await leftAtTheEngine(firstId)).toEqual({ containers: 0, networks: 0, volumes: expect.any(Number) });
      expect((await machine.attempt("sh", "-c", "command -v gpunode")).code).not.toBe(0);
      expect(await machine.run("cat", CONFIG)).toContain(SMI);
      await apt("install", inside(made.deb(NEW)));
      expect(await node.connected()).toBe(firstId);
    });

    test("after a purge nothing is left", async () => {
      expect((await leftAtTheEngine(firstId)).volumes).toBeGreaterThan(0);
      await runningJob();
      await apt("purge", "gpunode");
      await nothingLeft();
      expect(await leftAtTheEngine(firstId)).toEqual({ containers: 0, networks: 0, volumes: 0 });
    });

    test("the tarball installs the same service, and the package then keeps away", async () => {
      const folder = `/opt/gpunode-${NEW}-linux-${process.arch}`;
      await machine.run(`${folder}/gpunode`, "service", "install");
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");
      await machine.write(CONFIG, node.config(SMI));
      await node.systemctl("restart", "gpunode.service");
      const id = await node.connected();
      expect(id).not.toBe(firstId);
      expect(await machine.run("gpunode", "status")).toContain("NVIDIA GeForce RTX 4090");

      const { code, stderr } = await machine.attempt("dpkg", "--install", inside(made.deb(NEW)));
      expect([code, stderr]).toEqual([1, expect.stringContaining("gpunode is installed as a service from elsewhere")]);
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");
      await machine.attempt("dpkg", "--purge", "gpunode");
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");

      await runningJob();
      await machine.run("gpunode", "service", "uninstall", "--purge");
      await machine.run("rm", "-r", folder);
      await nothingLeft();
      expect(await leftAtTheEngine(id)).toEqual({ containers: 0, networks: 0, volumes: 0 });
    });

    test("where Docker is not there yet, the unit starts all the same, and the group goes again", async () => {
      await machine.run("groupdel", "--force", "docker");
      await apt("install", inside(made.deb(OLD)));
      expect(await node.systemctl("is-active", "gpunode.service")).toBe("active");
      expect(await machine.run("getent", "group", "docker")).toMatch(/^docker:/);
      await apt("purge", "gpunode");
      await nothingLeft();
      expect((await machine.attempt("getent", "group", "docker")).stdout).toBe("");
    });

    /** No file, user, group, unit or process that bears the name. */
    async function nothingLeft(): Promise<void> {
      const places = ["/etc", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var"];
      const found = await machine.run("find", ...places, "-iname", "*gpunode*", "-not", "-path", "/opt/*");
      expect(found).toBe("");
      expect(await machine.run("cat", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")).not.toContain(
        "gpunode",
      );
      expect((await machine.attempt("systemctl", "cat", "gpunode.service")).code).not.toBe(0);
      expect(await machine.run("sh", "-c", "cat /proc/[0-9]*/comm")).not.toContain("gpunode");
      expect((await machine.attempt("dpkg", "--status", "gpunode")).stdout).not.toMatch(
        /^Status: .* (?!not-installed)\S+$/m,
      );
    }
  },
);

async function isUp(container: string): Promise<boolean> {
  return (await docker().listContainers()).some(({ Id }) => Id === container);
}

/** Of a node, running or not. */
async function leftAtTheEngine(nodeId: string): Promise<{ containers: number; networks: number; volumes: number }> {
  const filters = { label: [`org.gpunode.node=${nodeId}`] };
  const [containers, networks, { Volumes }] = await Promise.all([
    docker().listContainers({ all: true, filters }),
    docker().listNetworks({ filters }),
    docker().listVolumes({ filters: JSON.stringify(filters) as never }),
  ]);
  return { containers: containers.length, networks: networks.length, volumes: Volumes?.length ?? 0 };
}
