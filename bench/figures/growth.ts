import { setTimeout as sleep } from "node:timers/promises";
import { type Bench, type BenchEngine, CannotRun, type Measured, spread } from "../lib/figure.ts";
import { type BenchNode, benchNode } from "../lib/node.ts";
import { cpuMsOf, rssMiB } from "../lib/process.ts";
import { runWorkloads } from "./footprint.ts";

const GPUS = [1, 2, 4, 8, 16];
const WORKLOADS = [1, 10, 50, 100];
const WINDOWS = 5;
const WINDOW_MS = 6_000;
/** What starting left behind has settled by then. */
const SETTLE_MS = 10_000;

interface Point {
  at: number;
  cpuPercent: number;
  rssMiB: number;
}

/** CPU and memory of the agent as GPUs and workloads become more. */
export const growth: Bench = {
  key: "growth",
  figures: [
    "growth with GPUs: CPU",
    "growth with GPUs: RSS",
    "growth with workloads: CPU",
    "growth with workloads: RSS",
  ],
  async run({ root, engine: open, log }) {
    const byGpus: Point[] = [];
    for (const count of GPUS) {
      const scenario = JSON.stringify({ gpus: [{ model: "h100-sxm-80gb", count }] });
      await using node = await benchNode({ root, scenario });
      const { pid = 0 } = node.start();
      await node.connected();
      byGpus.push(await pointOf(pid, count));
      log(`${count} GPUs: ${inWords(byGpus.at(-1))}`);
    }
    const rows = rowsOf("GPUs", byGpus, this.figures.slice(0, 2));
    const engine = await open().catch((error: unknown) => {
      if (error instanceof CannotRun) return undefined;
      throw error;
    });
    if (engine === undefined) return rows;
    await using node = await benchNode({ root, socket: engine.socket, more: "" });
    const { pid = 0 } = node.start();
    await node.connected();
    return [...rows, ...rowsOf("workloads", await byWorkloads(node, engine, pid, log), this.figures.slice(2))];
  },
};

async function byWorkloads(
  node: BenchNode,
  engine: BenchEngine,
  pid: number,
  log: (line: string) => void,
): Promise<Point[]> {
  const points: Point[] = [];
  let running = 0;
  for (const count of WORKLOADS) {
    await runWorkloads(node, engine, count - running, running);
    running = count;
    points.push(await pointOf(pid, count));
    log(`${count} workloads: ${inWords(points.at(-1))}`);
  }
  return points;
}

async function pointOf(pid: number, at: number): Promise<Point> {
  await sleep(SETTLE_MS);
  const [cpu, memory]: [number[], number[]] = [[], []];
  for (let window = 0; window < WINDOWS; window += 1) {
    const before = { cpuMs: cpuMsOf(pid), at: performance.now() };
    await sleep(WINDOW_MS);
    cpu.push(((cpuMsOf(pid) - before.cpuMs) / (performance.now() - before.at)) * 100);
    memory.push(rssMiB(pid));
  }
  return { at, cpuPercent: spread(cpu).median, rssMiB: spread(memory).median };
}

function rowsOf(what: string, points: readonly Point[], figures: readonly string[]): Measured[] {
  const row = (figure: string, unit: string, figureOf: (point: Point) => number): Measured => {
    const { slope, intercept, r2 } = line(points.map((point) => [point.at, figureOf(point)]));
    const values = points.map((point) => `${point.at}: ${figureOf(point).toFixed(2)}`).join(", ");
    const fit = `${intercept.toFixed(2)} + ${slope.toFixed(3)} ${unit} for each, R² ${r2.toFixed(2)}`;
    return {
      figure,
      unit,
      rounds: points.map((point) => ({ ours: figureOf(point) })),
      note: `${what} ${values}; ${fit}`,
    };
  };
  return [
    row(figures[0] ?? "", "% of a core", ({ cpuPercent }) => cpuPercent),
    row(figures[1] ?? "", "MiB", ({ rssMiB: memory }) => memory),
  ];
}

/** The straight line that lies closest (least squares), and how much of the difference it explains. */
function line(points: readonly (readonly [x: number, y: number])[]): { slope: number; intercept: number; r2: number } {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanX, meanY] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const sum = (of: (x: number, y: number) => number) =>
    points.reduce((total, [x, y]) => total + of(x - meanX, y - meanY), 0);
  const [xx, xy, yy] = [sum((x) => x * x), sum((x, y) => x * y), sum((_, y) => y * y)];
  const slope = xy / xx;
  return { slope, intercept: meanY - slope * meanX, r2: yy === 0 ? 1 : (xy * xy) / (xx * yy) };
}

function inWords(point: Point | undefined): string {
  return `CPU ${point?.cpuPercent.toFixed(2)} %, RSS ${point?.rssMiB.toFixed(1)} MiB`;
}
