import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { unitFor } from "../../src/cli/service-steps.ts";
import { resolveConfig } from "../../src/config/load.ts";
import { gpunode, root, scratch } from "./gpunode.ts";

const UNIT = "etc/systemd/system/gpunode.service";
const CONFIG = "etc/gpunode/config.toml";
const LINK = "usr/local/bin/gpunode";
const haveSystemdAnalyze = existsSync("/usr/bin/systemd-analyze");

async function verify(unit: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)("systemd-analyze", ["verify", unit]);
  return stdout + stderr;
}

describe("service install and uninstall, under a prefix", () => {
  it("writes the unit for this very installation and a configuration to fill in, and takes the unit away again", async () => {
    const prefix = scratch();
    const dry = await gpunode(["service", "install", "--dry-run", "--prefix", prefix]);
    expect(dry.out).toContain(`would: write ${prefix}/${UNIT}`);
    expect(existsSync(join(prefix, "etc"))).toBe(false);

    const installed = await gpunode(["service", "install", "--prefix", prefix]);
    expect(installed).toEqual({
      code: 0,
      out: `write ${prefix}/${UNIT}
write ${prefix}/${CONFIG} for you to fill in
link ${prefix}/${LINK} to ${root}/bin/gpunode.js
`,
      err: "",
    });
    const unit = readFileSync(join(prefix, UNIT), "utf8");
    expect(unit).toMatch(new RegExp(`^ExecStart=\\S+/bin/node ${root}/bin/gpunode.js run$`, "m"));
    expect(statSync(join(prefix, CONFIG)).mode & 0o777).toBe(0o640);
    // The configuration it leaves behind is a right one.
    await resolveConfig({ file: join(prefix, CONFIG), env: {} });
    if (haveSystemdAnalyze) expect(await verify(join(prefix, UNIT))).toBe("");

    // Again: nothing is left to write, and what the owner wrote stays.
    writeFileSync(join(prefix, CONFIG), 'name = "mine"\n');
    expect((await gpunode(["service", "install", "--prefix", prefix])).out).toBe("");
    expect(readFileSync(join(prefix, CONFIG), "utf8")).toBe('name = "mine"\n');

    expect((await gpunode(["service", "uninstall", "--prefix", prefix])).out).toBe(
      `remove ${prefix}/${UNIT}\nremove ${prefix}/${LINK}\n`,
    );
    expect(existsSync(join(prefix, UNIT))).toBe(false);
    expect(readdirSync(join(prefix, "usr/local/bin"))).toEqual([]);
    expect(existsSync(join(prefix, CONFIG))).toBe(true);
    expect((await gpunode(["service", "uninstall", "--prefix", prefix])).out).toContain("the service is not installed");
  });

  it("with --purge takes configuration and state away, also where the service is gone already", async () => {
    const prefix = scratch();
    await gpunode(["service", "install", "--prefix", prefix]);
    await gpunode(["service", "uninstall", "--prefix", prefix]);
    mkdirSync(join(prefix, "var/lib/gpunode"), { recursive: true });
    expect((await gpunode(["service", "uninstall", "--purge", "--prefix", prefix])).code).toBe(0);
    expect([existsSync(join(prefix, "etc/gpunode")), readdirSync(join(prefix, "var/lib"))]).toEqual([false, []]);
  });

  it("leaves a command of that name that somebody else has put there, and takes an earlier link of its own over", async () => {
    const prefix = scratch();
    const link = join(prefix, LINK);
    mkdirSync(join(prefix, "usr/local/bin"), { recursive: true });
    symlinkSync("../lib/node_modules/gpunode/bin/gpunode.js", link);
    expect((await gpunode(["service", "install", "--prefix", prefix])).out).toContain("is something else");
    await gpunode(["service", "uninstall", "--prefix", prefix]);
    expect(readlinkSync(link)).toBe("../lib/node_modules/gpunode/bin/gpunode.js");

    rmSync(link);
    symlinkSync("/opt/gpunode-0.1.0-linux-x64/gpunode", link);
    await gpunode(["service", "install", "--prefix", prefix]);
    expect(readlinkSync(link)).toBe(join(root, "bin/gpunode.js"));
  });

  it("keeps away where the Debian package is", async () => {
    const prefix = scratch();
    mkdirSync(join(prefix, "usr/lib/systemd/system"), { recursive: true });
    writeFileSync(join(prefix, "usr/lib/systemd/system/gpunode.service"), "");
    for (const verb of ["install", "uninstall"]) {
      expect(await gpunode(["service", verb, "--prefix", prefix])).toMatchObject({
        code: 1,
        err: expect.stringContaining("this machine has the Debian package gpunode") as string,
      });
    }
    expect(readdirSync(prefix)).toEqual(["usr"]);
  });

  it("wants an absolute prefix", async () => {
    expect((await gpunode(["service", "install", "--prefix", "somewhere"])).code).toBe(2);
  });
});

it("the unit survives paths with spaces and percent signs, and a machine without Docker", () => {
  const unit = unitFor({ node: "/opt/my node/bin/node", entry: "/opt/50%/gpunode.js", hasDocker: false });
  expect(unit).toContain('\nExecStart="/opt/my node/bin/node" /opt/50%%/gpunode.js run\n');
  expect(unit).not.toContain("SupplementaryGroups");
  expect(unitFor({ node: "/n", entry: "/e", hasDocker: true })).toContain("\nSupplementaryGroups=docker\n");
});

describe.runIf(haveSystemdAnalyze)("systemd-analyze", () => {
  it("has nothing to say about the unit", async () => {
    expect(await verify(join(root, "systemd/gpunode.service"))).toBe("");
  });
});
