// npm run bench:scrapes (ten minutes): what a Prometheus that scrapes /metrics costs a daemon that has nothing else to do.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { grownToB200 } from "./document.ts";
import { cpuMs, printed } from "./sampling.ts";

const root = resolve(import.meta.dirname, "..");
const SETTLE_MS = 20_000;
const MEASURE_MS = 120_000;

const folder = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
try {
  process.env.GPUNODE_SIM_SCENARIO = "h100x8";
  const simulator = join(root, "bin/nvidia-smi-sim.js");
  const document = await output(process.execPath, [simulator, "-q", "-x"]);
  const smi = join(folder, "nvidia-smi");
  writeFileSync(smi, printed(folder, grownToB200(document), simulator));
  chmodSync(smi, 0o755);
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
    const status = readFileSync(`/proc/${daemon.pid}/status`, "utf8");
    const residentMiB = Math.round(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024);
    const childrenMs = after.all - after.own - (before.all - before.own);
    return { daemonMs: after.own - before.own, childrenMs, bytes, residentMiB };
  } finally {
    const closed = once(daemon, "close");
    daemon.kill("SIGTERM");
    await closed;
  }
}

function usage({ pid = 0 }: ChildProcess): { own: number; all: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { own: (Number(fields[11]) + Number(fields[12])) * 10, all: cpuMs(pid) };
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

async function output(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const chunk of child.stdout) text += String(chunk);
  return text;
}
