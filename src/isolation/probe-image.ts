import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { ProbeEngine } from "./needs.ts";
import type { RuntimeFile } from "./probe-archive.ts";

/** On the image of a probe; its value says which runtime is in it. */
export const LABEL_PROBE = "org.gpunode.probe";

/** The image a probe runs from. */
export interface ProbeImage {
  readonly id: string;
  /** Absolute path of Node in it. */
  readonly node: string;
  /** Folders of its shared libraries, as `LD_LIBRARY_PATH` takes them. */
  readonly libraryPath: string;
}

/**
 * The image a probe runs from, made of this process's own Node and the libraries it is linked with where the engine does not have it yet:
 * nothing is pulled, so it works on a machine without internet. About 120 MB, made once for each version of Node and kept.
 */
export async function probeImage(engine: ProbeEngine, signal: AbortSignal): Promise<ProbeImage> {
  const files = await runtimeFiles();
  const libraries = [...new Set(files.slice(1).map(({ path }) => dirname(path)))];
  const label = `${LABEL_PROBE}=${fingerprint(files)}`;
  const id = (await engine.findImage(label)) ?? (await make(engine, files, label, signal));
  return { id, node: process.execPath, libraryPath: libraries.join(":") };
}

async function make(engine: ProbeEngine, files: readonly RuntimeFile[], label: string, signal: AbortSignal) {
  // Loaded once for each version of Node, and not with every start.
  const { archiveOf } = await import("./probe-archive.ts");
  // A name under which no registry can ever have something.
  return await engine.importImage(archiveOf(files), {
    name: `gpunode.invalid/probe:${process.version}`,
    label,
    signal,
  });
}

/** Node first, then what the dynamic loader has loaded for it, the loader itself included. */
async function runtimeFiles(): Promise<RuntimeFile[]> {
  const libraries = sharedObjects().filter((path) => /^\/.*\.so(\.|$)/.test(path));
  return await Promise.all(
    [process.execPath, ...libraries].map(async (path) => ({ path, size: (await stat(path)).size })),
  );
}

function sharedObjects(): string[] {
  // @types/node does not know the option yet.
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork: boolean };
  const before = report.excludeNetwork;
  // Otherwise the report asks the resolver for the name of every open connection.
  report.excludeNetwork = true;
  try {
    return (report.getReport() as { sharedObjects?: string[] }).sharedObjects ?? [];
  } finally {
    report.excludeNetwork = before;
  }
}

function fingerprint(files: readonly RuntimeFile[]): string {
  const parts = [process.version, process.arch, ...files.map(({ path, size }) => `${path} ${size}`)];
  return createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 16);
}
