import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Report } from "../../src/doctor/report.ts";
import { outcome, root, start } from "../cli/gpunode.ts";
import { World } from "../isolation/world.ts";
import { engineIsPrivate, haveEngine } from "../support/engine.ts";

const SLOW = 120_000;
/** A machine's own nft goes before any in PATH. */
const hasNft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"].some((path) => existsSync(path));

describe.runIf(haveEngine && engineIsPrivate)("the doctor's own trial of the isolation", { timeout: SLOW }, () => {
  let world: World;
  beforeAll(async () => {
    world = await World.open();
  }, SLOW);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
    expect(readdirSync("/run/netns").filter((name) => name.startsWith(world.name))).toEqual([]);
  }, SLOW);

  /** `gpunode doctor isolation` on the machine, whose daemon does not run. */
  async function isolation(env: NodeJS.ProcessEnv = {}): Promise<string> {
    const config = join(world.engine.dir, "doctor.toml");
    writeFileSync(config, `run_dir = "${world.engine.dir}/none"\ndocker = { socket = "${world.engine.socket}" }\n`);
    const { under, env: own } = world.onMachine;
    const command = [
      ...under,
      process.execPath,
      join(root, "bin/gpunode.js"),
      "doctor",
      "isolation",
      "--json",
      "--config",
      config,
    ];
    const path = (env.PATH ?? own.PATH) as string;
    const { out, err } = await outcome(
      start(command[0] ?? "", command.slice(1), { ...(own as Record<string, string>), PATH: path }),
    );
    const [check] = (JSON.parse(out || `{"checks":[{"verdict":"${err}"}]}`) as Report).checks;
    return `${check?.verdict}: ${check?.found}`;
  }

  /** What it could have left on the machine. */
  async function left() {
    const docker = new Docker({ socketPath: world.engine.socket });
    const containers = await docker.listContainers({ all: true });
    const networks = await docker.listNetworks({ filters: { label: ["org.gpunode.node"] } });
    return [...containers.map(({ Names }) => Names), ...networks.map(({ Name }) => Name), await world.table()];
  }

  it("shows that it would hold, and takes its rules away again", async () => {
    expect(await isolation()).toBe("ok: a trial from inside two containers has shown it");
    expect(await left()).toEqual([undefined]);
  });

  it.skipIf(hasNft)("shows that it would not, where the rules come to nothing", async () => {
    const folder = join(world.engine.dir, "fake");
    mkdirSync(folder);
    writeFileSync(join(folder, "nft"), "#!/bin/sh\ncat >/dev/null\n");
    chmodSync(join(folder, "nft"), 0o755);
    expect(await isolation({ PATH: `${folder}:${process.env.PATH ?? ""}` })).toMatch(
      /^failure: .*does not hold: a container reaches/,
    );
    expect(await left()).toEqual([undefined]);
  });

  it.skipIf(hasNft)("says where there is no nft", async () => {
    expect(await isolation({ PATH: process.env.PATH ?? "" })).toBe("failure: nft is not installed");
  });
});
