// npm run bench:scrapes (ten minutes): what a Prometheus that scrapes /metrics costs a daemon that has nothing else to do.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cpuMsOf, cpuMsOfTree, rssMiB } from "./lib/process.ts";
import { printedSmi } from "./lib/smi.ts";

const root = resolve(import.meta.dirname, "..");
const SETTLE_MS = 20_000;
const MEASURE_MS = 120_000;
/** Between two sets of the stream that is kept for a scraper. */
const STREAM_MS = 2_000;

const folder = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
try {
  const smi = printedSmi(folder, join(root, "bin/nvidia-smi-sim.js"), STREAM_MS);
  for (const everySeconds of [undefined, 60, 15, 5]) {
    const { daemonMs, childrenMs, bytes, residentMiB } = await measure(smi, everySeconds);
    const what =
      everySeconds === undefined ? "no scrape" : `a scrape every ${everySeconds} s (${Math.round(bytes / 1024)} KiB)`;
    const percent = (ms: number) => `${((ms / MEASURE_MS) * 100).toFixed(2)} %`;
    console.log(
      `${what}: daemon ${percent(daemonMs)} of a core, nvidia-smi ${percent(childrenMs)}; ${residentMiB} MiB`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** CPU of a daemon and of the nvidia-smi it starts while it is scraped. */
async function measure(smi: string, everySeconds: number | undefined) {
  const dir = mkdtempSync(join(folder, "node-"));
  const config = join(dir, "config.toml");
  writeFileSync(
    config,
    `state_dir = "${dir}/state"
run_dir = "${dir}/run"
docker = { socket = "${dir}/none" }
nvidia = { smi = "${smi}", simulated = true }
network = { isolate_lan = false }
metrics = { listen = "127.0.0.1:0" }
`,
  );
  const env = { ...process.env, GPUNODE_POLICY_ALLOW_ROOT: "true" };
  const daemon = spawn(process.execPath, [join(root, "bin/gpunode.js"), "run", "--config", config], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const url = await urlOf(daemon);
    let bytes = 0;
    const until = performance.now() + SETTLE_MS + MEASURE_MS;
    const scrape = async () => {
      while (everySeconds !== undefined && performance.now() < until) {
        bytes = (await (await fetch(`${url}metrics`)).text()).length;
        await sleep(everySeconds * 1000);
      }
    };
    const scraping = scrape();
    await sleep(SETTLE_MS);
    const before = usage(daemon);
    await sleep(MEASURE_MS);
    const after = usage(daemon);
    await scraping;
    const residentMiB = Math.round(rssMiB(daemon.pid ?? 0));
    const childrenMs = after.all - after.own - (before.all - before.own);
    return { daemonMs: after.own - before.own, childrenMs, bytes, residentMiB };
  } finally {
    const closed = once(daemon, "close");
    daemon.kill("SIGTERM");
    await closed;
  }
}

function usage({ pid = 0 }: ChildProcess): { own: number; all: number } {
  return { own: cpuMsOf(pid), all: cpuMsOfTree(pid) };
}

function urlOf({ stdout }: ChildProcess): Promise<string> {
  let said = "";
  return new Promise((resolve, reject) => {
    stdout?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const url = /"url":"(http:[^"]+)"/.exec(said)?.[1];
      if (url !== undefined) resolve(url);
    });
    stdout?.once("end", () => reject(new Error(`the daemon ended: ${said}`)));
  });
}
