import { join, resolve } from "node:path";
import { bringUp, pulling } from "../figures/bring-up.ts";
import { cycles } from "../figures/cycles.ts";
import { documents } from "../figures/documents.ts";
import { events } from "../figures/events.ts";
import { footprint } from "../figures/footprint.ts";
import { growth } from "../figures/growth.ts";
import { latency } from "../figures/latency.ts";
import { preemption, reclaim, shutdown } from "../figures/preemption.ts";
import { sampling } from "../figures/sampling.ts";
import { start, status } from "../figures/start.ts";
import { telemetryBytes } from "../figures/telemetry-bytes.ts";
import { openEngine } from "./engine.ts";
import { type Bench, type BenchContext, type BenchEngine, CannotRun } from "./figure.ts";
import type { Row } from "./table.ts";

/** All benches, in the order of the table. */
export const BENCHES: readonly Bench[] = [
  bringUp,
  pulling,
  footprint,
  sampling,
  start,
  status,
  events,
  telemetryBytes,
  preemption,
  growth,
  documents,
  latency,
  reclaim,
  shutdown,
  cycles,
];

const root = resolve(import.meta.dirname, "../..");

/** Runs benches one after the other; one that cannot run is a row that says why. What they share is gone when this resolves. */
export async function runBenches(
  benches: readonly Bench[],
  options: Pick<BenchContext, "isQuick" | "soakMinutes" | "log">,
): Promise<Row[]> {
  await using things = new AsyncDisposableStack();
  let engine: Promise<BenchEngine & AsyncDisposable> | undefined;
  const context: BenchContext = {
    ...options,
    root,
    simulator: join(root, "bin/nvidia-smi-sim.js"),
    async engine() {
      engine ??= openEngine(root).then((opened) => things.use(opened));
      return await engine;
    },
  };
  const rows: Row[] = [];
  for (const bench of benches) {
    options.log(`${bench.key} …`);
    try {
      rows.push(...(await bench.run(context)).map((measured) => ({ key: bench.key, ...measured })));
      const measured = new Set(rows.map(({ figure }) => figure));
      const left = options.isQuick ? [] : bench.figures.filter((figure) => !measured.has(figure));
      rows.push(...left.map((figure) => ({ key: bench.key, figure, skipped: "needs an engine: see above" })));
    } catch (error) {
      const { name, message } = error instanceof Error ? error : new Error(String(error));
      // A bench that breaks is told in its rows too: the others have cost an hour.
      const skipped = error instanceof CannotRun ? message : `${name}: ${message}`;
      if (!(error instanceof CannotRun)) process.exitCode = 1;
      rows.push(...bench.figures.map((figure) => ({ key: bench.key, figure, skipped })));
    }
  }
  return rows;
}
