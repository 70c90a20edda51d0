import { readFileSync } from "node:fs";
import * as os from "node:os";
import type { HostInfo } from "../protocol/frames.ts";
import { diskTotalMiB } from "./sampler.ts";

const MIB = 1024 * 1024;

/** Node's architecture names as image manifests write them (GOARCH). Others are the same in both. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/** Where os-release(5) says it is, the machine's own before the distribution's. */
const OS_RELEASE = ["/etc/os-release", "/usr/lib/os-release"];

/**
 * What the machine is made of; read once at start. `diskPath` is where workloads' data lies. Never throws: what
 * cannot be found out is absent.
 */
export function hostInventory(options: { diskPath?: string; osRelease?: readonly string[] } = {}): HostInfo {
  const { diskPath = "/", osRelease = OS_RELEASE } = options;
  const cpus = os.cpus();
  const disk = diskTotalMiB(diskPath);
  return {
    ...withoutBlanks({
      hostname: os.hostname(),
      os: distribution(osRelease) ?? os.type(),
      kernel: os.release(),
      cpuModel: cpus[0]?.model,
    }),
    architecture: GO_ARCHITECTURES[os.arch()] ?? os.arch(),
    cpus: Math.max(1, cpus.length),
    memoryMiB: Math.floor(os.totalmem() / MIB),
    ...(disk !== undefined && { diskTotalMiB: disk }),
  };
}

/** "Debian GNU/Linux 12"; undefined where no file tells. */
function distribution(files: readonly string[]): string | undefined {
  for (const file of files) {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch {
      continue;
    }
    const [name, version] = ["NAME", "VERSION_ID"].map(
      (key) => new RegExp(`^${key}=(["']?)(.*)\\1$`, "m").exec(text)?.[2] ?? "",
    );
    if (name) return `${name} ${version}`.trim();
  }
  return undefined;
}

type Names = Pick<HostInfo, "hostname" | "os" | "kernel" | "cpuModel">;

function withoutBlanks(names: Record<keyof Names, string | undefined>): Names {
  const known = Object.entries(names).flatMap(([key, value]) => {
    const text = value?.trim() ?? "";
    return text === "" || text === "unknown" ? [] : [[key, text] as const];
  });
  return Object.fromEntries(known);
}
