import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

/** How a gpunode came onto the machine: from its repository, unpacked, or with dpkg. */
export type Distribution = "checkout" | "tarball" | "deb";

/** The unit of the Debian package, below `prefix`. */
const PACKAGED_UNIT = "usr/lib/systemd/system/gpunode.service";

/** How this gpunode came here; `scripts/package.mjs` writes it into the package.json of what it makes. */
export function distribution(root = packageRoot()): Distribution {
  const { distribution: told } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    distribution?: Distribution;
  };
  return told ?? "checkout";
}

/** True where the Debian package is on the machine whose root folder is `prefix`, whichever gpunode asks. */
export function isPackageInstalled(prefix = "/"): boolean {
  return existsSync(join(prefix, PACKAGED_UNIT));
}

/** Absolute path of what starts this gpunode, to be put into a folder of PATH. */
export function startProgram(root = packageRoot()): string {
  return join(root, distribution(root) === "checkout" ? "bin/gpunode.js" : "gpunode");
}

/** Absolute path of the simulated `nvidia-smi`. A checkout's needs a `node` on PATH, as npm's own programs do. */
export function simulatorProgram(root = packageRoot()): string {
  return join(root, distribution(root) === "checkout" ? "bin/nvidia-smi-sim.js" : "nvidia-smi-sim");
}
