import type * as z from "zod";
import type { EngineInfo } from "../protocol/agent-frames.ts";
import { InfoAnswer, VersionAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer } from "./client.ts";

/** How long `info` waits: it is asked for while the node tells about itself. */
const INFO_MS = 5_000;

/** Docker 27 (API 1.46) has private IPv6 subnets to give and filters and translates them; before, the owner had to set both up. */
const API_MINOR_IPV6 = 46;

/** What the engine is and can do. */
export interface EngineFacts {
  /** Never throws: an engine that is away is `available: false`. */
  info(signal?: AbortSignal): Promise<EngineInfo>;
  /** True where the engine can put an init process before the workload's command; asked for once. */
  hasInit(): Promise<boolean>;
  /** True where its storage may be able to hold a container's layer to a size; only a try can tell. */
  mayHoldDisk(): boolean;
  /** True where the engine gives out IPv6 subnets by itself and translates them; asked for once. */
  givesIpv6(): Promise<boolean>;
  /** Where the engine keeps images and layers, as it last said; undefined before. */
  dataRoot(): string | undefined;
}

export function engineFacts(client: EngineClient): EngineFacts {
  let init: boolean | undefined;
  let apiMinor: number | undefined;
  let dataRoot: string | undefined;
  let mayHoldDisk = false;

  async function read(signal?: AbortSignal): Promise<EngineInfo> {
    const options = { doing: "ask the container engine what it is", timeoutMs: INFO_MS, signal };
    const [version, info] = await Promise.all([
      client.ask((abortSignal) => client.get("/version", { abortSignal }), options),
      client.ask((abortSignal) => client.get("/info", { abortSignal }), options),
    ]);
    const itsVersion = parseAnswer(VersionAnswer, version, "its version");
    const answer = parseAnswer(InfoAnswer, info, "itself");
    const { InitBinary, InitCommit, DockerRootDir } = answer;
    dataRoot = DockerRootDir;
    mayHoldDisk = holdsDisk(answer);
    apiMinor = Number(/^1\.(\d+)/.exec(itsVersion.ApiVersion)?.[1] ?? 0);
    // The engine names the init program it would use whether it is there or not; Debian's docker.io may come without.
    // Where it could not run the program to ask for its version, that reads "N/A". Debian's tini names no commit: "".
    init = InitBinary !== "" && InitCommit?.ID !== "N/A";
    return engineInfoOf(itsVersion, answer);
  }

  return {
    info: async (signal) => await read(signal).catch(() => ({ kind: "docker" as const, available: false })),
    async hasInit() {
      if (init === undefined) await read();
      return init ?? false;
    },
    mayHoldDisk: () => mayHoldDisk,
    async givesIpv6() {
      if (apiMinor === undefined) await read();
      return (apiMinor ?? 0) >= API_MINOR_IPV6;
    },
    dataRoot: () => dataRoot,
  };
}

/** Its answers in the protocol's words. */
export function engineInfoOf(
  { Version, ApiVersion }: z.infer<typeof VersionAnswer>,
  answer: z.infer<typeof InfoAnswer>,
): EngineInfo & { available: true } {
  const { Driver, CgroupVersion, Runtimes } = answer;
  return {
    kind: "docker",
    available: true,
    version: Version,
    apiVersion: ApiVersion,
    ...(Driver !== undefined && { storageDriver: Driver }),
    ...(CgroupVersion !== undefined && { cgroupVersion: CgroupVersion }),
    ...(Runtimes && { runtimes: Object.keys(Runtimes).sort() }),
    ...keepsApart(answer),
  };
}

/** Storage drivers that know `size` (https://docs.docker.com/reference/cli/docker/container/create/#storage-opt). overlay2 also needs xfs mounted with `pquota`. */
export function holdsDisk({ Driver, DriverStatus }: z.infer<typeof InfoAnswer>): boolean {
  if (Driver === "btrfs" || Driver === "zfs") return true;
  const backing = DriverStatus?.find(([name]) => name === "Backing Filesystem")?.[1];
  return Driver === "overlay2" && backing === "xfs";
}

/** What keeps containers apart and in bounds; absent where the engine does not say. */
function keepsApart(info: z.infer<typeof InfoAnswer>): Pick<EngineInfo, "security" | "limits"> {
  const { SecurityOptions, MemoryLimit, CpuCfsQuota, PidsLimit } = info;
  const options = SecurityOptions?.map((option) => new Map(option.split(",").map((part) => splitOnce(part))));
  const security = options
    // An engine told to run containers unconfined still lists seccomp, with that as its profile.
    ?.filter((option) => option.get("name") !== "seccomp" || option.get("profile") !== "unconfined")
    .flatMap((option) => option.get("name") ?? [])
    .sort();
  const limits = { cpu: CpuCfsQuota, memory: MemoryLimit, pids: PidsLimit };
  const told = Object.values(limits).every((limit) => limit !== undefined);
  return {
    ...(security !== undefined && { security }),
    ...(told && { limits: Object.entries(limits).flatMap(([name, has]) => (has === true ? [name] : [])) }),
  };
}

function splitOnce(text: string): [string, string] {
  const at = text.indexOf("=");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
