import { execFile } from "node:child_process";
import { readFile, realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import { pack } from "tar-stream";
import { findProgram } from "./debian-packages.ts";

const execFileAsync = promisify(execFile);

/** One file, folder or symbolic link of an image, by its absolute path. */
export type LayerEntry =
  | { readonly path: string; readonly content: Uint8Array | string; readonly mode?: number }
  | { readonly path: string; readonly linkTo: string };

/** What a small image's jobs need where there is no busybox: a shell and the programs demo jobs call. */
const PROGRAMS = [
  "sh",
  "cat",
  "date",
  "echo",
  "env",
  "false",
  "head",
  "id",
  "ls",
  "seq",
  "sleep",
  "tail",
  "true",
  "uname",
];

const ACCOUNTS: readonly LayerEntry[] = [
  { path: "/etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" },
  { path: "/etc/group", content: "root:x:0:\nnogroup:x:65534:\n" },
];

/**
 * A root file system small enough for a demo, made of this machine's own programs: busybox with all its
 * applets where there is one (`busybox`; default: the one on the `PATH`), else or with "none" the shell and a few core programs with the libraries
 * they are linked with.
 */
export async function rootFileSystem(options: { busybox?: string } = {}): Promise<LayerEntry[]> {
  const busybox = options.busybox ?? (await findProgram("busybox")) ?? "none";
  if (busybox === "none") {
    const programs = await Promise.all(PROGRAMS.map((name) => programFiles(name)));
    return [...ACCOUNTS, ...distinct(programs.flat())];
  }
  const { stdout } = await execFileAsync(busybox, ["--list"]);
  const applets = stdout.split("\n").filter((name) => name !== "" && name !== "busybox");
  return [
    ...ACCOUNTS,
    { path: "/bin/busybox", content: await readFile(busybox), mode: 0o755 },
    ...(await librariesOf(busybox)),
    ...applets.map((name) => ({ path: `/bin/${name}`, linkTo: "busybox" })),
  ];
}

/** A tar archive of the entries, byte for byte the same for the same entries: no clock, no user, parents first. */
export async function tarOf(entries: readonly LayerEntry[]): Promise<Buffer> {
  const archive = pack();
  const mtime = new Date(0);
  // Docker makes folders that the archive leaves out with mode 0600, where no ordinary user gets in.
  for (const folder of parentFolders(entries)) {
    archive.entry({ name: `${folder.slice(1)}/`, type: "directory", mode: 0o755, mtime });
  }
  for (const entry of entries) {
    const name = entry.path.slice(1);
    if ("linkTo" in entry) archive.entry({ name, type: "symlink", linkname: entry.linkTo, mtime });
    else archive.entry({ name, mode: entry.mode ?? 0o644, mtime }, Buffer.from(entry.content));
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function programFiles(name: string): Promise<LayerEntry[]> {
  const path = await findProgram(name);
  if (path === undefined) return [];
  const content = await readFile(await realpath(path));
  return [{ path: `/bin/${basename(path)}`, content, mode: 0o755 }, ...(await librariesOf(path))];
}

async function librariesOf(program: string): Promise<LayerEntry[]> {
  // ldd fails for a static program, which needs none.
  const { stdout } = await execFileAsync("ldd", [program]).catch(() => ({ stdout: "" }));
  const paths = [...stdout.matchAll(/(\/\S+) \(0x/g)].flatMap((match) => (match[1] === undefined ? [] : [match[1]]));
  return Promise.all(paths.map(async (path) => ({ path, content: await readFile(path), mode: 0o755 })));
}

function distinct(entries: readonly LayerEntry[]): LayerEntry[] {
  return [...new Map(entries.map((entry) => [entry.path, entry])).values()];
}

function parentFolders(entries: readonly LayerEntry[]): string[] {
  const folders = new Set<string>();
  for (const entry of entries) {
    for (let folder = dirname(entry.path); folder !== "/"; folder = dirname(folder)) folders.add(folder);
  }
  return [...folders].sort();
}
