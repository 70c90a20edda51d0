import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { alternating, type Bench, type BenchContext, type Measured } from "../lib/figure.ts";
import { nextFrame } from "../lib/frames.ts";
import { benchNode } from "../lib/node.ts";
import { runMs } from "../lib/process.ts";
import { printedSmi } from "../lib/smi.ts";

const ROUNDS = 15;
const EMPTY = ["-e", "0"];
/** A daemon is left alone for so long before it is ended: what it still loads is not the next round's. */
const SETTLE_MS = 300;

const nothing = () => runMs(process.execPath, EMPTY);

/** How long the daemon takes from its start to the coordinator having its advertisement. */
export const start: Bench = {
  key: "start",
  figures: ["start of the daemon to advertise", "the same, where no engine answers"],
  quick: true,
  async run(bench) {
    const [figure = "", bare = ""] = this.figures;
    const without = await startOf(bench, bare, undefined);
    if (bench.isQuick) return [without];
    return [await startOf(bench, figure, (await bench.engine()).socket), without];
  },
};

async function startOf(
  { root, simulator }: BenchContext,
  figure: string,
  socket: string | undefined,
): Promise<Measured> {
  await using node = await benchNode({ root, ...(socket !== undefined && { socket }) });
  const folder = join(node.dir, "smi");
  mkdirSync(folder);
  const smi = printedSmi(folder, simulator, 1000);
  const ours = async () => {
    const advertised = nextFrame("received", '"type":"advertise"');
    const began = performance.now();
    node.start({ GPUNODE_NVIDIA_SMI: smi });
    const took = (await advertised).at - began;
    await sleep(SETTLE_MS);
    await node.end();
    return took;
  };
  const rounds = await alternating({ rounds: ROUNDS }, ours, nothing);
  const note = "a restart, not the first start; nvidia-smi answers at once";
  return { figure, unit: "ms", baseline: "node -e 0", rounds, reach: { ratioAtMost: 4 }, note };
}

/** What a client command takes while the daemon runs. */
export const status: Bench = {
  key: "status",
  figures: ["gpunode status", "gpunode --version"],
  quick: true,
  async run({ root }) {
    await using node = await benchNode({ root });
    node.start();
    await node.connected();
    const program = join(root, "bin/gpunode.js");
    const command = async (figure: string, args: readonly string[]) => {
      const ours = () => runMs(process.execPath, [program, ...args]);
      const rounds = await alternating({ rounds: ROUNDS }, ours, nothing);
      return { figure, unit: "ms", baseline: "node -e 0", rounds };
    };
    return [
      { ...(await command(this.figures[0] ?? "", ["status", "--config", node.config])), reach: { ratioAtMost: 2.5 } },
      await command(this.figures[1] ?? "", ["--version"]),
    ];
  },
};
