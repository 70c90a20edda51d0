import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findProgram } from "../../src/demo/debian-packages.ts";
import { debianRoot, debianSuite } from "../support/debian-root.ts";
import { type Made, makeInto, makePackages } from "../support/packages.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const CACHE_DIR = join(root, "node_modules/.cache/gpunode-testbed");
const VERSION = "1.2.3";
const haveDpkg = (await findProgram("dpkg-deb")) !== undefined;
/** A chroot, and mounts of its own. */
const canLint = process.geteuid?.() === 0 && debianSuite() !== undefined;

describe.runIf(haveDpkg)("what npm run package makes", { timeout: 120_000 }, () => {
  let made: Made;
  let unpacked: string;
  let folder: string;

  beforeAll(async () => {
    made = await makePackages(VERSION);
    unpacked = mkdtempSync(join(tmpdir(), "gpunode-unpacked-"));
    await run("dpkg-deb", ["--raw-extract", made.deb(VERSION), join(unpacked, "deb")]);
    await run("tar", ["--extract", `--file=${made.tarball(VERSION)}`, `--directory=${unpacked}`]);
    folder = join(unpacked, `gpunode-${VERSION}-linux-${process.arch}`);
  });
  afterAll(() => {
    made?.[Symbol.dispose]();
    if (unpacked !== undefined) rmSync(unpacked, { recursive: true });
  });

  const inDeb = (path: string) => join(unpacked, "deb", path);
  const text = (path: string) => readFileSync(path, "utf8");

  test("is the same to the byte again, whatever the user's umask, and is what SHA256SUMS says", async () => {
    using again = await makePackages();
    const script = join(root, "scripts/package.mjs");
    const args = [script, "--out", again.dir, "--version", VERSION, "--compression", "none"];
    await run("sh", ["-c", 'umask 077; exec "$0" "$@"', process.execPath, ...args]);
    const files = readdirSync(made.dir).sort();
    expect(readdirSync(again.dir).sort()).toEqual(files);
    expect(files).toHaveLength(3);
    for (const file of files) expect(sha256(join(again.dir, file)), file).toBe(sha256(join(made.dir, file)));
    for (const line of text(join(made.dir, "SHA256SUMS")).trim().split("\n")) {
      const [sum, file = ""] = line.split("  ");
      expect(sha256(join(made.dir, file))).toBe(sum);
    }
  });

  test("the package belongs to root, has no file that others may change, and no conffile to be asked about", async () => {
    const { stdout } = await run("dpkg-deb", ["--contents", made.deb(VERSION)]);
    const entries = stdout.trim().split("\n");
    expect(entries.length).toBeGreaterThan(50);
    for (const entry of entries) expect(entry).toMatch(/^(?:drwxr-xr-x|-rwxr-xr-x|-rw-r--r--|lrwxrwxrwx) root\/root /);
    expect(entries.filter((entry) => /^-rwx/.test(entry)).map((entry) => entry.split(" ").at(-1))).toEqual([
      "./usr/lib/gpunode/gpunode",
      "./usr/lib/gpunode/node",
      "./usr/lib/gpunode/nvidia-smi-sim",
    ]);
    expect(readdirSync(inDeb("DEBIAN")).sort()).toEqual([
      ...["control", "md5sums", "postinst", "postrm", "preinst", "prerm"],
    ]);
  });

  test("the unit starts the package's own Node, and the first configuration names documents that are there", () => {
    const unit = text(inDeb("usr/lib/systemd/system/gpunode.service"));
    expect(unit).toContain("\nExecStart=/usr/lib/gpunode/node /usr/lib/gpunode/bin/gpunode.js run\n");
    expect(unit).toContain("\nSupplementaryGroups=docker\n");
    const named = [unit, text(inDeb("usr/share/gpunode/config.toml"))].join().match(/\/usr\/share\/doc\/[\w./-]*\w/g);
    expect(named?.length).toBeGreaterThanOrEqual(3);
    for (const path of named ?? []) expect(existsSync(inDeb(path)), path).toBe(true);
  });

  test("names everything that is bundled with its licence, and passes Node's on", () => {
    const copyright = text(inDeb("usr/share/doc/gpunode/copyright"));
    for (const name of ["ws", "zod", "dockerode", "commander", "pino", "split-ca"]) {
      expect(copyright).toMatch(new RegExp(`^ {2}${name} \\d+\\.\\d+\\.\\d+ \\((?:MIT|ISC|Apache-2\\.0)\\)$`, "m"));
    }
    // Left out of the bundle, so not passed on.
    expect(copyright).not.toMatch(/^ {2}(?:ssh2|protobufjs|esbuild) /m);
    expect(copyright).toContain("Copyright Node.js contributors");
    expect(text(join(folder, "COPYRIGHT"))).toContain("Copyright Node.js contributors");
  });

  test("manual and completions are where their readers look, where the repository has them", () => {
    const places = {
      "man/gpunode.1": "usr/share/man/man1/gpunode.1.gz",
      "completions/gpunode.bash": "usr/share/bash-completion/completions/gpunode",
      "completions/_gpunode": "usr/share/zsh/vendor-completions/_gpunode",
      "completions/gpunode.fish": "usr/share/fish/vendor_completions.d/gpunode.fish",
    };
    for (const [from, to] of Object.entries(places)) {
      expect(existsSync(inDeb(to)), to).toBe(existsSync(join(root, from)));
    }
  });

  test("the tarball's folder runs from where it lies, also through a link, without a Node of the machine's", async () => {
    const link = join(unpacked, "somewhere");
    symlinkSync(join(folder, "gpunode"), link);
    const env = { PATH: "/usr/bin:/bin" };
    expect((await run(link, ["--version"], { env })).stdout).toBe(`${VERSION}\n`);
    const sim = await run(join(folder, "nvidia-smi-sim"), ["-L"], { env: { ...env, GPUNODE_SIM_SCENARIO: "t4" } });
    expect(sim.stdout).toMatch(/^GPU 0: Tesla T4/);
    const prefix = join(unpacked, "prefix");
    const { stdout } = await run(link, ["service", "install", "--prefix", prefix], { env });
    expect(stdout).toContain(`link ${prefix}/usr/local/bin/gpunode to ${folder}/gpunode`);
    expect(text(join(prefix, "etc/systemd/system/gpunode.service"))).toContain(
      `\nExecStart=${folder}/node ${folder}/bin/gpunode.js run\n`,
    );
  });

  test("a release candidate sorts before its release in Debian's order", async () => {
    using candidate = await makePackages("2.0.0-rc.1");
    const { stdout } = await run("dpkg-deb", ["--field", candidate.deb("2.0.0~rc.1"), "Version"]);
    await run("dpkg", ["--compare-versions", stdout.trim(), "lt", "2.0.0"]);
    expect(existsSync(candidate.tarball("2.0.0-rc.1"))).toBe(true);
  });

  test.each([
    [["--version", "one"], "--version one: expected a version such as 1.2.0"],
    [["--arch", "mips"], "--arch mips: expected x64 or arm64"],
    [["--compression", "zip"], "--compression zip: expected xz or gzip or none"],
  ])("refuses %j in a sentence", async (args, says) => {
    await expect(makeInto(made.dir, ...args)).rejects.toMatchObject({
      stderr: expect.stringContaining(says) as string,
    });
  });

  test.runIf(canLint)("lintian has nothing to say about it", { timeout: 400_000 }, async () => {
    const lint = await debianRoot({ dir: CACHE_DIR, log: console.log, packages: ["lintian"] });
    // Mounts that nobody else sees, and that end with it.
    const script = `mount -t tmpfs tmpfs "$1/tmp" && mount --bind "$2" "$1/media" && shift 2 && exec chroot "$LINT_ROOT" "$@"`;
    const allowed = ["uses-no-compression-for-control-tarball", "uses-no-compression-for-data-tarball"];
    if (!existsSync(join(root, "man/gpunode.1"))) allowed.push("no-manual-page");
    const lintian = ["lintian", "--allow-root", "--display-info", `--suppress-tags=${allowed.join(",")}`];
    const deb = `/media/${made.deb(VERSION).slice(made.dir.length + 1)}`;
    const { stdout } = await run(
      "unshare",
      ["--mount", "sh", "-c", script, "sh", lint.root, made.dir, ...lintian, deb],
      {
        env: { PATH: process.env.PATH, LC_ALL: "C.UTF-8", LINT_ROOT: lint.root },
      },
    ).catch((error: { stdout: string; stderr: string }) => ({ stdout: `${error.stdout}${error.stderr}` }));
    expect(stdout).toBe("");
  });
});

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
