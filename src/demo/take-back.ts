import { setTimeout as sleep } from "node:timers/promises";
import type { CoordinatorClient, WorkloadWithEvents } from "../coordinator/client.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Children } from "./children.ts";
import { jobLine } from "./words.ts";

export interface TakeBackDoors {
  client: CoordinatorClient;
  image: string;
  gpus: readonly Gpu[];
  children: Children;
  /** The daemon's configuration. */
  config: string;
  say: (line: string) => void;
  signal: AbortSignal;
}

const ID = "batch";
/** Would go on for ever; saves where it is when it is told to end. */
const SCRIPT = `i=0; trap 'echo "saved at step $i"; exit 143' TERM; while :; do i=$((i + 1)); sleep 0.2; done`;
const LOOK_EVERY_MS = 100;

/** A job's GPU is taken back by the owner. Resolves to whether the job was told, saved its work, and ended as one that was preempted. */
export async function takeBack({
  client,
  image,
  gpus,
  children,
  config,
  say,
  signal,
}: TakeBackDoors): Promise<boolean> {
  const reached = async (states: readonly string[]): Promise<WorkloadWithEvents> => {
    for (;;) {
      await children.requireAlive();
      const job = await client.workload(ID);
      if (states.includes(job.state) || job.endedAt !== undefined) return job;
      await sleep(LOOK_EVERY_MS, undefined, { signal });
    }
  };
  const command = ["sh", "-c", SCRIPT];
  await client.submit({ id: ID, image, command, gpus: { count: 1 }, resources: { memoryMiB: 256 } });
  say(`\n$ gpunode coordinator submit --id ${ID} --gpus 1 ${image} …`);
  const running = await reached(["running"]);
  say(jobLine(running));
  const index = gpus.find(({ uuid }) => running.gpus.includes(uuid))?.index;
  if (index === undefined) return false;
  // So that there is something to save.
  await sleep(1_000, undefined, { signal });
  const args = ["reclaim", "--gpu", String(index), "--for", "2h"];
  for (const asked of [args, ["logs", ID]]) {
    say(`\n$ gpunode ${asked.join(" ")}\n${(await children.run([...asked, "--config", config])).trimEnd()}`);
  }
  const { state } = await reached(["preempted"]);
  return state === "preempted";
}
