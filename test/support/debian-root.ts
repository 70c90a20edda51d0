import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";

/** What a machine of the smallest kind with a service manager has. `mmdebstrap` adds what is essential and apt. */
const WITH_SYSTEMD = ["systemd", "systemd-sysv", "dbus"];
/** Nobody reads them there, and they are a fifth of it. */
const LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
/** 13 s with packages at hand; a slow mirror must not hold a test for ever. */
const BUILD_TIMEOUT_MS = 300_000;

export interface DebianRoot {
  /** A complete root file system, not to be changed. */
  root: string;
  /** Path of `systemd-nspawn`, and the environment in which it finds its libraries. */
  nspawn: string;
  env: NodeJS.ProcessEnv;
}

/** The machine's release (`bookworm`); undefined where it is not Debian or Ubuntu, whose packages are used. */
export function debianSuite(): string | undefined {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const isDebian = /^ID(?:_LIKE)?="?(?:[^"\n]* )?debian\b/m.test(release);
  return isDebian ? /^VERSION_CODENAME="?([a-z]+)/m.exec(release)?.[1] : undefined;
}

/**
 * A root file system of this machine's own release with these packages (systemd and D-Bus by default), and the program that boots it. Both
 * are fetched and unpacked below `dir` and kept there for the next time; nothing is installed on this machine.
 */
export async function debianRoot({
  dir,
  log,
  packages = WITH_SYSTEMD,
}: {
  dir: string;
  log(line: string): void;
  packages?: readonly string[];
}): Promise<DebianRoot> {
  const { paths, env: found } = await findOrUnpack(
    { mmdebstrap: "mmdebstrap", "systemd-nspawn": "systemd-container" },
    { dir, log },
  );
  // systemd's programs share a library in a folder of its own.
  const libraries = found.LD_LIBRARY_PATH?.split(":").flatMap((path) => [path, join(path, "systemd")]);
  const env = { ...process.env, ...found, ...(libraries !== undefined && { LD_LIBRARY_PATH: libraries.join(":") }) };
  const suite = debianSuite() ?? "";
  const root = join(dir, `root-${suite}-${packages.join("+")}`);
  if (!existsSync(root)) {
    log(`Making a root file system of Debian's packages ${packages.join(", ")} in ${root}.`);
    await mkdir(dir, { recursive: true });
    const work = await mkdtemp(join(dir, ".root-"));
    try {
      const target = join(work, "root");
      const options = [`--include=${packages.join(",")}`, ...LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`)];
      const args = ["--quiet", "--variant=minbase", "--format=directory", ...options, suite, target];
      await promisify(execFile)(paths.mmdebstrap ?? "mmdebstrap", [...args, ...(await packageSources(suite))], {
        env,
        timeout: BUILD_TIMEOUT_MS,
        maxBuffer: 16 * 1024 * 1024,
      });
      // Whole or not at all, also for those who do the same at the same time.
      await rename(target, root).catch((error: unknown) => {
        if (!existsSync(root)) throw error;
      });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  return { root, nspawn: paths["systemd-nspawn"] ?? "systemd-nspawn", env };
}

/** Files with this machine's own package sources of that release, so that its mirrors are asked and no others. */
async function packageSources(suite: string): Promise<string[]> {
  const listed = await readdir("/etc/apt/sources.list.d").catch(() => []);
  const files = ["/etc/apt/sources.list", ...listed.map((name) => join("/etc/apt/sources.list.d", name))];
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8").catch(() => "")));
  return files.filter((file, index) => /\.(?:list|sources)$/.test(file) && texts[index]?.includes(suite));
}
