import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";
import { startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { docker, engineIsPrivate, haveEngine, smallImage } from "../support/engine.ts";
import { openEngine, pullOptions, pullSmallImage, removeAll, runToEnd, specFor } from "./harness.ts";

const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const MIB = 1024 * 1024;

/** File systems whose storage drivers hold a layer to a size, and how Docker is put on them. */
const HOLDING = [
  { name: "xfs", maker: "mkfs.xfs", packageName: "xfsprogs", mountOptions: "pquota", driver: "overlay2" },
  { name: "btrfs", maker: "mkfs.btrfs", packageName: "btrfs-progs", mountOptions: "rw", driver: "btrfs" },
] as const;

describe.runIf(engineIsPrivate)("an engine whose data lies on", { timeout: 180_000 }, () => {
  const things = new AsyncDisposableStack();
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "gpunode-quota-"));
    things.defer(() => rmSync(dir, { recursive: true, force: true }));
  });
  afterAll(() => things.disposeAsync());

  /** A disk in a file, mounted; undefined where this kernel cannot. */
  async function mounted(how: Pick<(typeof HOLDING)[number], "maker" | "packageName">, name: string, options: string) {
    const { maker, packageName } = how;
    const { paths, env } = await findOrUnpack({ [maker]: packageName }, { dir: PACKAGES_DIR, log: () => undefined });
    const [disk, data] = [join(dir, `${name}.img`), join(dir, name)];
    writeFileSync(disk, "");
    truncateSync(disk, 600 * MIB);
    execFileSync(paths[maker] ?? maker, ["-q", disk], { env: { ...process.env, ...env } });
    mkdirSync(data);
    if (spawnSync("mount", ["-o", `loop,${options}`, disk, data]).status !== 0) return undefined;
    things.defer(() => void execFileSync("umount", [data]));
    return data;
  }

  async function engineOn(data: string, driver: string) {
    const dockerd = await startPrivateEngine({
      dir: `${data}-engine`,
      packagesDir: PACKAGES_DIR,
      log: () => undefined,
      daemonConfig: { "data-root": data, "storage-driver": driver },
    });
    things.use(dockerd);
    const registry = things.use(await startRegistry());
    const engine = things.use(openEngine({ socketPath: dockerd.socket }));
    await engine.info();
    const image = (await engine.pull(registry.add("quota/sh:1", await smallImage()), pullOptions())).id;
    return { engine, image };
  }
  const fill = "dd if=/dev/zero of=/x bs=1M count=60 2>&1; wc -c </x";

  it.for(HOLDING)("$name holds the writable layer to diskMiB: the writer sees a full disk", async (how, { skip }) => {
    const data = await mounted(how, how.name, how.mountOptions);
    if (data === undefined) return skip(`this kernel mounts no ${how.name} with the option ${how.mountOptions}`);
    const { engine, image } = await engineOn(data, how.driver);
    const { output } = await runToEnd(engine, specFor(engine, image, fill, { diskMiB: 30 }));
    expect(output).toMatch(/No space left on device|Disk quota exceeded/);
    expect(Number(output.trim().split("\n").at(-1))).toBeLessThanOrEqual(30 * MIB);
    await removeAll(engine);
  });

  it("xfs without project quotas says no, and the container is made all the same", async ({ skip }) => {
    const data = await mounted(HOLDING[0], "plain", "noquota");
    if (data === undefined) return skip("this kernel mounts no xfs");
    const { engine, image } = await engineOn(data, "overlay2");
    for (let i = 0; i < 2; i++) {
      const { output } = await runToEnd(engine, specFor(engine, image, fill, { diskMiB: 30 }));
      expect(output.trim().split("\n").at(-1)).toBe(String(60 * MIB));
    }
    await removeAll(engine);
  });
});

describe.runIf(haveEngine)("an engine that can hold no layer to a size", () => {
  it("is asked for none", async () => {
    await using engine = openEngine();
    const image = await pullSmallImage(engine, `engine-test/quota-${process.pid}:1`);
    const { Driver, DriverStatus } = (await docker().info()) as { Driver: string; DriverStatus: [string, string][] };
    const backing = DriverStatus.find(([name]) => name === "Backing Filesystem")?.[1];
    const { id } = await runToEnd(engine, specFor(engine, image, "true"));
    const { HostConfig } = await docker().getContainer(id).inspect();
    if (Driver === "overlay2" && backing !== "xfs") expect(HostConfig.StorageOpt ?? {}).toEqual({});
    await removeAll(engine);
  });
});
