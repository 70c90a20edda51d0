import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { callEngine } from "../../src/demo/engine-api.ts";
import type { Bench, Round } from "../lib/figure.ts";
import { type BenchNode, benchNode } from "../lib/node.ts";
import { rssMiB } from "../lib/process.ts";

const CYCLES = 1000;
const AT_A_TIME = 4;
const READINGS = 20;

/** Many workloads through one daemon, a few at a time: what does it keep? Some ten minutes. */
export const cycles: Bench = {
  key: "cycles",
  figures: [`RSS over ${CYCLES} workloads, against RSS after the first fifth`],
  onlyByName: true,
  async run({ root, engine: open, log }) {
    const engine = await open();
    await using node = await benchNode({ root, socket: engine.socket });
    const { pid = 0 } = node.start();
    await node.connected();
    const descriptors = () => readdirSync(`/proc/${pid}/fd`).length;
    const rounds: Round[] = [];
    let [next, done, warm, warmDescriptors]: [number, number, number | undefined, number] = [0, 0, undefined, 0];
    const worker = async () => {
      while (next < CYCLES) {
        await cycle(node, engine.image, next++);
        done += 1;
        if (done % (CYCLES / READINGS) !== 0) continue;
        log(`${done} workloads: RSS ${rssMiB(pid).toFixed(1)} MiB, ${descriptors()} descriptors`);
        if (done < CYCLES / 5) continue;
        warm ??= rssMiB(pid);
        warmDescriptors ||= descriptors();
        rounds.push({ ours: rssMiB(pid), baseline: warm });
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, worker));
    await sleep(5000);
    const left = async (path: string) =>
      (JSON.parse((await callEngine(engine.socket, { path, timeoutMs: 10_000 })).body) as unknown[]).length;
    const note = `descriptors ${warmDescriptors} → ${descriptors()}; left on the engine: ${await left("/containers/json?all=1")} containers, ${await left("/networks")} networks (3 are its own)`;
    return [{ figure: this.figures[0] ?? "", unit: "MiB", baseline: "RSS when warm", rounds, note }];
  },
};

async function cycle(node: BenchNode, image: string, n: number): Promise<void> {
  const id = `c${n}`;
  await node.client.submit({ id, image, command: ["true"], gpus: { count: 1 } });
  const end = await node.client.waitForEnd(id, {
    intervalMs: 50,
    signal: AbortSignal.timeout(120_000),
    onChange: () => undefined,
  });
  if (end.state !== "succeeded") throw new Error(`${id} ended ${end.state}: ${JSON.stringify(end.events.at(-1))}`);
}
