import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { engineIsPrivate, smallImage } from "../support/engine.ts";
import { patiently, Site } from "./rig.ts";

const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const sh = (script: string) => ["sh", "-c", script];
const log = () => undefined;

/** Users of the machine that are nobody: what root inside is outside. */
const FIRST_UID = 1_879_048_192;

describe.runIf(engineIsPrivate)("on an engine that remaps users", { timeout: 180_000 }, () => {
  const things = new AsyncDisposableStack();
  let engine: PrivateEngine;
  let image: string;
  let site: Site;
  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-userns-"));
    things.defer(() => rmSync(dir, { recursive: true, force: true }));
    // The remapped root has to pass through it.
    chmodSync(dir, 0o711);
    // dockerd reads the ranges from /etc/subuid: it sees an /etc of its own, and the machine's stays as it is.
    const etc = join(dir, "etc");
    cpSync("/etc", etc, { recursive: true, verbatimSymlinks: true });
    for (const file of ["subuid", "subgid"])
      writeFileSync(join(etc, file), `nobody:${FIRST_UID}:65536\nnogroup:${FIRST_UID}:65536\n`);
    engine = things.use(
      await startPrivateEngine({
        dir: join(dir, "e"),
        packagesDir: PACKAGES_DIR,
        log,
        daemonConfig: { "userns-remap": "nobody:nogroup" },
        through: ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', etc],
      }),
    );
    const registry = things.use(await startRegistry());
    image = registry.add("userns/sh:1", await smallImage());
    site = things.use(
      await Site.open({
        socket: engine.socket,
        simulated: true,
        more: 'policy = { userns = "require" }\n',
        env: { GPUNODE_POLICY_ALLOW_ROOT: "" },
      }),
    );
  }, 180_000);
  afterAll(() => things.disposeAsync());

  test("root inside is allowed, since it is nobody outside, and can do no more than root does elsewhere", async () => {
    expect((await site.connected()).policy).toMatchObject({ allowRoot: true, userns: "require" });
    const script = "id -u; cat /proc/self/uid_map; grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo ready; sleep 60";
    await site.client.submit({ id: "root", image, command: sh(script) });
    await site.reaches("root", "running");
    const output = await patiently(() => {
      const { stdout } = site.rig.gpunode("logs", "root");
      return stdout.includes("ready") ? stdout : undefined;
    });
    expect(output).toMatch(/^0\n/);
    expect(output).toMatch(new RegExp(`^ +0 +${FIRST_UID} +65536$`, "m"));
    expect(output).toMatch(/CapEff:\t00000000000004fb\nNoNewPrivs:\t1/);
    const docker = new Docker({ socketPath: engine.socket });
    const [found] = await docker.listContainers({ filters: { label: ["org.gpunode.workload=root"] } });
    const { State, HostConfig } = await docker.getContainer(found?.Id ?? "").inspect();
    expect(HostConfig.UsernsMode).toBe("");
    const uids = /^Uid:\s+(.*)$/m.exec(readFileSync(`/proc/${State.Pid}/status`, "utf8"))?.[1]?.split(/\s+/);
    expect(new Set(uids)).toEqual(new Set([String(FIRST_UID)]));
    await site.client.release("root");
    await site.ends("root");
  });

  test("notices reach the tenant, and its caches can be written to", async () => {
    const script =
      "trap 'cat \"$GPUNODE_PREEMPTION_FILE\"; exit 143' TERM; touch /models/x && echo ready; while :; do sleep 0.1; done";
    await site.client.submit({ id: "told", image, command: sh(script), caches: [{ name: "m", path: "/models" }] });
    await patiently(() => (site.rig.gpunode("logs", "told").stdout.includes("ready") ? true : undefined));
    await site.client.preempt("told", { graceSeconds: 5 });
    expect((await site.ends("told")).state).toBe("preempted");
    expect(site.rig.gpunode("logs", "told").stdout).toContain('"phase":"notice"');
  });
});

describe.runIf(engineIsPrivate)("under gVisor", { timeout: 180_000 }, () => {
  const things = new AsyncDisposableStack();
  let engine: PrivateEngine;
  let image: string;
  let site: Site;
  beforeAll(async () => {
    const { paths } = await findOrUnpack({ runsc: "runsc" }, { dir: PACKAGES_DIR, log });
    const dir = mkdtempSync(join(tmpdir(), "gpunode-runsc-"));
    things.defer(() => rmSync(dir, { recursive: true, force: true }));
    mkdirSync(join(dir, "runsc"));
    engine = things.use(
      await startPrivateEngine({
        dir: join(dir, "e"),
        packagesDir: PACKAGES_DIR,
        log,
        // ptrace and no network of its own: what also runs inside a virtual machine without nested virtualization.
        daemonConfig: {
          runtimes: { runsc: { path: paths.runsc, runtimeArgs: ["--platform=ptrace", "--network=none"] } },
        },
      }),
    );
    const registry = things.use(await startRegistry());
    image = registry.add("gvisor/sh:1", await smallImage({ user: "1000:1000" }));
    site = things.use(
      await Site.open({ socket: engine.socket, simulated: true, more: 'policy = { runtime = "runsc" }\n' }),
    );
  }, 180_000);
  afterAll(() => things.disposeAsync());

  test("a workload sees gVisor's kernel and not the machine's, and runs to its end", async () => {
    await site.client.submit({ id: "inside", image, command: sh("dmesg; id -u; cat /proc/version") });
    const view = await site.ends("inside");
    const { stdout } = site.rig.gpunode("logs", "inside");
    expect(view.state, stdout).toBe("succeeded");
    expect(stdout).toContain("Starting gVisor");
    expect(stdout).toMatch(/^1000$/m);
    const kernel = readFileSync("/proc/sys/kernel/osrelease", "utf8").trim();
    expect(stdout).not.toContain(kernel);
  });
});
