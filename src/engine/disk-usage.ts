import type { DiskAccount } from "../workload/needs.ts";
import { ContainerSizesAnswer, DiskUsageAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer } from "./client.ts";
import { LABEL_NODE } from "./container.ts";

/** The engine walks through every file: with millions of them this takes minutes. */
const WALK_MS = 600_000;

/**
 * What this node's running containers and all volumes hold. Volumes have no size of their own in Docker's API but in its account of everything
 * (`/system/df`), which since API 1.42 can be asked for volumes alone; an older engine counts the rest as well.
 */
export async function diskAccount(client: EngineClient, nodeId: string, signal: AbortSignal): Promise<DiskAccount> {
  const filters = JSON.stringify({ label: [`${LABEL_NODE}=${nodeId}`], status: ["running"] });
  const list = await client.ask(
    (abortSignal) => client.get("/containers/json", { query: { size: "true", filters }, abortSignal }),
    { doing: "ask how much containers have written", timeoutMs: WALK_MS, signal },
  );
  const usage = await client.ask(
    (abortSignal) => client.get("/system/df", { query: { type: "volume" }, abortSignal }),
    { doing: "ask how much volumes hold", timeoutMs: WALK_MS, signal },
  );
  const { Volumes } = parseAnswer(DiskUsageAnswer, usage, "its disk");
  return {
    containers: parseAnswer(ContainerSizesAnswer, list, "containers").map(({ Id, SizeRw, Mounts }) => ({
      id: Id,
      layerBytes: SizeRw,
      volumes: Mounts.flatMap(({ Type, Name, Destination }) =>
        Type === "volume" ? [{ name: Name, path: Destination }] : [],
      ),
    })),
    // -1 where the engine could not count it.
    volumeBytes: new Map(Volumes.map(({ Name, UsageData }) => [Name, Math.max(0, UsageData?.Size ?? 0)])),
  };
}
