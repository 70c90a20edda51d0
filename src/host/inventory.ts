import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import * as os from "node:os";
import { promisify } from "node:util";
import type { HostInfo } from "../protocol/frames.ts";
import { diskTotalMiB } from "./sampler.ts";

const MIB = 1024 * 1024;

/** A machine where lscpu hangs is advertised without its answer. */
const LSCPU_TIMEOUT_MS = 5_000;

/** Node's architecture names as image manifests write them (GOARCH). Others are the same in both. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/**
 * What the machine is made of; read once at start. `diskPath` is where workloads' data lies. Never throws: what
 * cannot be found out is absent. The others are for tests: os-release(5), the program lscpu, and what Node tells of the CPUs.
 */
export async function hostInventory(
  options: { diskPath?: string; osRelease?: string; lscpu?: string; cpus?: readonly { model: string }[] } = {},
): Promise<HostInfo> {
  const { diskPath = "/", osRelease = "/etc/os-release", lscpu = "lscpu", cpus = os.cpus() } = options;
  const disk = diskTotalMiB(diskPath);
  return {
    ...withoutBlanks({
      hostname: os.hostname(),
      os: distributionOf(readIfThere(osRelease)) ?? os.type(),
      kernel: os.release(),
      cpuModel: modelOf(cpus[0]?.model) ?? modelOf(await askedModel(lscpu)),
    }),
    architecture: GO_ARCHITECTURES[os.arch()] ?? os.arch(),
    cpus: Math.max(1, cpus.length),
    memoryMiB: Math.floor(os.totalmem() / MIB),
    ...(disk !== undefined && { diskTotalMiB: disk }),
  };
}

/** os-release(5): "Debian GNU/Linux 12". */
export function distributionOf(text: string): string | undefined {
  const fieldOf = (field: string) => {
    // Values may be quoted as in a shell; names of distributions hold nothing that would need unescaping.
    const value = new RegExp(`^${field}=(["']?)(.*)\\1$`, "m").exec(text)?.[2];
    return value?.trim() || undefined;
  };
  const name = fieldOf("NAME");
  const version = fieldOf("VERSION_ID");
  return name === undefined ? undefined : [name, version].filter((part) => part !== undefined).join(" ");
}

/** Without the marks lawyers put there; undefined where it is none. */
function modelOf(text: string | undefined): string | undefined {
  const model = (text ?? "").replace(/\((R|TM)\)/gi, "").replace(/\s+/g, " ");
  // Node's word for a CPU whose kernel tells no name.
  return model.trim() === "unknown" ? undefined : model.trim() || undefined;
}

/** ARM kernels tell numbers instead of a name; lscpu(1) knows the names. */
async function askedModel(lscpu: string): Promise<string | undefined> {
  try {
    const env = { ...process.env, LC_ALL: "C" };
    const { stdout } = await promisify(execFile)(lscpu, [], { env, timeout: LSCPU_TIMEOUT_MS });
    const [vendor, model] = ["Vendor ID", "Model name"].map((name) =>
      new RegExp(`^${name}:\\s*(\\S.*)$`, "m").exec(stdout)?.[1]?.trim(),
    );
    return model === undefined || model === "-" ? undefined : [vendor, model].filter(Boolean).join(" ");
  } catch {
    return undefined;
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

type Names = Pick<HostInfo, "hostname" | "os" | "kernel" | "cpuModel">;

function withoutBlanks(names: Record<keyof Names, string | undefined>): Names {
  const known = Object.entries(names).flatMap(([key, value]) => {
    const text = value?.trim() ?? "";
    return text === "" ? [] : [[key, text] as const];
  });
  return Object.fromEntries(known);
}
