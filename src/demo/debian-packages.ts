import { execFile } from "node:child_process";
import { access, constants, mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";

const execFileAsync = promisify(execFile);

/** Where administrators' programs lie on Debian; often missing from a plain user's `PATH`. */
const SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** One slow mirror must not hold a demo for ever; 70 MB in ten minutes is about 1 Mbit/s. */
const DOWNLOAD_TIMEOUT_MS = 600_000;

/** Says in one plain sentence what this machine lacks for the testbed, and what to do about it. */
export class TestbedUnavailableError extends Error {
  override readonly name = "TestbedUnavailableError";
}

/** Programs and the Debian packages that hold them: `{ dockerd: "docker.io" }`. */
export type WantedPrograms = Readonly<Record<string, string>>;

export interface UnpackOptions {
  /** Kept for the next call, which then needs no network. */
  dir: string;
  log: (line: string) => void;
  /** Packages without a program (fonts), unpacked beside those that have one. */
  also?: readonly string[];
  /** What to do where the programs cannot be had; a sentence. */
  remedy?: string;
  signal?: AbortSignal;
}

const REMEDY = "Install Docker, start it and try again.";

/** Found or unpacked programs and the environment in which they run. */
export interface Programs {
  /** Absolute path of each wanted program. */
  readonly paths: Readonly<Record<string, string>>;
  /** `PATH` and, where libraries were unpacked too, `LD_LIBRARY_PATH`. */
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Finds the wanted programs on this machine; where one is missing, has apt download the packages that hold them
 * (with what these depend on and this machine lacks) and unpacks them into `dir`.
 *
 * The packages are unpacked, never installed: an installed docker.io would bring a system service that also
 * starts at the next boot, a group and configuration files, on a machine that is somebody's. Nothing outside `dir`
 * changes, except that apt may refresh its own package lists.
 *
 * @throws {TestbedUnavailableError} where a program is missing and this is not Debian or one of its relatives.
 */
export async function findOrUnpack(wanted: WantedPrograms, options: UnpackOptions): Promise<Programs> {
  const inherited = [...(process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== ""), ...SYSTEM_FOLDERS];
  const here = await findAll(wanted, inherited);
  if (here.missing.length === 0) return { paths: here.paths, env: { PATH: unique(inherited).join(delimiter) } };

  const packages = unique([
    ...here.missing.map((program) => wanted[program] ?? program),
    ...(options.also ?? []),
  ]).sort();
  const root = join(options.dir, packages.join("+"));
  const folders = unique([...["usr/sbin", "usr/bin", "sbin", "bin"].map((folder) => join(root, folder)), ...inherited]);
  if (!(await exists(root))) await unpack(packages, root, options);
  const found = await findAll(wanted, folders);
  if (found.missing.length > 0) {
    throw new TestbedUnavailableError(
      `Debian's packages ${packages.join(", ")} do not hold ${found.missing.join(", ")} on this machine. ` +
        (options.remedy ?? REMEDY),
    );
  }
  const env: Record<string, string> = { PATH: folders.join(delimiter) };
  const libraries = await libraryFolders(root);
  if (libraries.length > 0) env.LD_LIBRARY_PATH = libraries.join(delimiter);
  return { paths: found.paths, env };
}

/** Absolute path of a program in `PATH` or one of the system's folders. */
export async function findProgram(name: string): Promise<string | undefined> {
  const folders = [...(process.env.PATH ?? "").split(delimiter), ...SYSTEM_FOLDERS];
  return (await findAll({ [name]: name }, folders)).paths[name];
}

async function unpack(packages: readonly string[], root: string, options: UnpackOptions): Promise<void> {
  await requireDebian(packages, options.remedy ?? REMEDY);
  const parent = dirname(root);
  await mkdir(parent, { recursive: true });
  const work = await mkdtemp(join(parent, ".unpacking-"));
  try {
    options.log(
      `Fetching ${packages.join(", ")} from Debian's package servers, to be unpacked below ${parent} and used from there: ` +
        "nothing is installed on this machine.",
    );
    const archives = join(work, "archives");
    await mkdir(join(archives, "partial"), { recursive: true });
    await download(packages, archives, options.signal);
    const files = (await readdir(archives)).filter((name) => name.endsWith(".deb"));
    for (const file of files) {
      await execFileAsync("dpkg-deb", ["-x", join(archives, file), join(work, "root")], abortable(options.signal));
    }
    // A rename is whole or not at all, so a concurrent or killed run never leaves half a folder that looks complete.
    await rename(join(work, "root"), root).catch(async (error: NodeJS.ErrnoException) => {
      if (!(await exists(root))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function download(packages: readonly string[], archives: string, signal?: AbortSignal): Promise<void> {
  const apt = (args: readonly string[]) =>
    execFileAsync("apt-get", ["-q", "-y", ...args], {
      ...abortable(signal),
      timeout: DOWNLOAD_TIMEOUT_MS,
      maxBuffer: 16 * 1024 * 1024,
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
    });
  const install = () =>
    apt([
      "install",
      "--download-only",
      "--no-install-recommends",
      ...["-o", `Dir::Cache::archives=${archives}`, "-o", "Debug::NoLocking=1"],
      ...packages,
    ]);
  try {
    await install();
  } catch (error) {
    if (signal?.aborted) throw error;
    // A fresh machine has no package lists, an old one has stale ones: both are cured by one update.
    await apt(["update"]).catch(() => undefined);
    try {
      await install();
    } catch (second) {
      throw new Error(`apt-get could not download ${packages.join(", ")}: ${lastLine(second)}`, { cause: second });
    }
  }
}

async function requireDebian(packages: readonly string[], remedy: string): Promise<void> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  const family = [...release.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)].flatMap((match) => match[1]?.split(" ") ?? []);
  if (family.includes("debian") && (await findProgram("apt-get")) && (await findProgram("dpkg-deb"))) return;
  throw new TestbedUnavailableError(
    `This machine lacks ${packages.join(", ")}, and it is not Debian or Ubuntu, where they could be fetched. ${remedy}`,
  );
}

async function findAll(
  wanted: WantedPrograms,
  folders: readonly string[],
): Promise<{ paths: Record<string, string>; missing: string[] }> {
  const paths: Record<string, string> = {};
  const missing: string[] = [];
  for (const program of Object.keys(wanted)) {
    const path = await firstExecutable(folders.map((folder) => join(folder, program)));
    if (path === undefined) missing.push(program);
    else paths[program] = path;
  }
  return { paths, missing };
}

async function firstExecutable(candidates: readonly string[]): Promise<string | undefined> {
  for (const path of candidates) {
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  return undefined;
}

/** Debian's multiarch folders (`usr/lib/x86_64-linux-gnu`) of an unpacked tree. */
async function libraryFolders(root: string): Promise<string[]> {
  const folders: string[] = [];
  for (const lib of ["usr/lib", "lib"]) {
    const entries = await readdir(join(root, lib), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (entry.isDirectory() && basename(entry.name).includes("-linux-gnu")) folders.push(join(root, lib, entry.name));
    }
  }
  return folders;
}

function abortable(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}

function lastLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string };
  return (stderr?.trim() || message || String(error)).split("\n").at(-1) ?? "";
}
