import type * as z from "zod";
import type { EngineInfo } from "../protocol/agent-frames.ts";
import { InfoAnswer, VersionAnswer } from "./answers.ts";
import { engineClient, parseAnswer } from "./client.ts";
import { engineInfoOf, holdsDisk } from "./info.ts";

/** How an engine is set up, beyond what a coordinator is told of it. */
export interface EngineAbout {
  info: EngineInfo & { available: true };
  /** `Docker Engine - Community`; `Podman Engine`. */
  product: string;
  /** `systemd`, `cgroupfs`; absent where it does not say. */
  cgroupDriver?: string;
  /** Running containers outlive a restart of the engine. */
  liveRestore: boolean;
  /** Where images and layers are kept. */
  dataRoot?: string;
  /** File system that the storage driver works on, in the engine's words. */
  backingFileSystem?: string;
  /** Its storage may be able to hold a container's layer to a size. */
  mayHoldDisk: boolean;
}

/** Asks the engine at that socket once. Throws `engine_unavailable` with why it does not answer, or the signal's reason. */
export async function askEngine(
  socketPath: string,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<EngineAbout> {
  using client = engineClient(socketPath);
  const options = { doing: "ask the container engine what it is", timeoutMs, signal };
  const [version, info] = await Promise.all([
    client.ask((abortSignal) => client.get("/version", { abortSignal }), options),
    client.ask((abortSignal) => client.get("/info", { abortSignal }), options),
  ]);
  return aboutOf(parseAnswer(VersionAnswer, version, "its version"), parseAnswer(InfoAnswer, info, "itself"));
}

function aboutOf(version: z.infer<typeof VersionAnswer>, answer: z.infer<typeof InfoAnswer>): EngineAbout {
  const backing = answer.DriverStatus?.find(([name]) => name === "Backing Filesystem")?.[1];
  const isPodman = version.Components.some(({ Name }) => /podman/i.test(Name));
  return {
    info: engineInfoOf(version, answer),
    product: isPodman ? "Podman Engine" : version.Platform.Name || "Docker Engine",
    ...(answer.CgroupDriver !== undefined && { cgroupDriver: answer.CgroupDriver }),
    liveRestore: answer.LiveRestoreEnabled ?? false,
    ...(answer.DockerRootDir !== undefined && { dataRoot: answer.DockerRootDir }),
    ...(backing !== undefined && { backingFileSystem: backing }),
    mayHoldDisk: holdsDisk(answer),
  };
}
