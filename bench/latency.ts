import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket, WebSocketServer } from "ws";
import { startCoordinator } from "../src/coordinator/server.ts";
import { Telemetry } from "../src/protocol/frames.ts";
import { median } from "./sampling.ts";

const FRAMES = 100;
const WARM_UP = 20;
const INTERVAL_MS = 100;

/** Microseconds of the clock that all processes of the machine share; kept small enough for a MHz column. */
const STAMP = "Number(process.hrtime.bigint() / 1000n % 1000000000n)";
const stamp = () => Number((process.hrtime.bigint() / 1000n) % 1_000_000_000n);

/**
 * An nvidia-smi whose stream says in the memory clock of the first GPU when it was printed: all rows of a set in one write, as
 * nvidia-smi flushes them. Everything else is asked of the simulator.
 */
function stampingSmi(simulator: string): string {
  return `#!${process.execPath}
const { spawnSync } = require("node:child_process");
const args = process.argv.slice(2);
const ask = (more) => spawnSync(process.execPath, [${JSON.stringify(simulator)}, ...more], { maxBuffer: 1 << 26 }).stdout;
if (!args.includes("-lms")) process.stdout.write(ask(args));
else {
  const fields = args[0].replace("--query-gpu=", "").split(",");
  const rows = ask(args.slice(0, 2)).toString().trim().split("\\n").map((row) => row.split(", "));
  setInterval(() => {
    rows[0][fields.indexOf("clocks.mem")] = String(${STAMP});
    process.stdout.write(rows.map((row) => row.join(", ") + "\\n").join(""));
  }, Number(args.at(-1)));
}
`;
}

/** Prints how long a set of samples is on its way from nvidia-smi's write to the coordinator having taken it. */
export async function benchLatency(root: string, simulator: string): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  await using things = new AsyncDisposableStack();
  things.defer(() => rmSync(dir, { recursive: true, force: true }));
  const tookMs: number[] = [];
  const bytes: number[] = [];
  // Only the coordinator has web sockets in this process: the daemon is another. Taken means that its handler has returned.
  const { emit } = WebSocket.prototype;
  WebSocket.prototype.emit = function (this: WebSocket, event: string | symbol, ...args: unknown[]) {
    const result = emit.call(this, event, ...args);
    if (event === "message") {
      const now = stamp();
      const text = String(args[0]);
      // The ping-pong below is no frame.
      const { data: frame } = Telemetry.safeParse(text.startsWith("{") ? JSON.parse(text) : undefined);
      const printed = frame?.gpus[0]?.memoryClockMHz;
      // Clocks of a full read are none of a stamp.
      if (printed !== undefined && printed > 1_000_000) {
        tookMs.push((now - printed) / 1000);
        bytes.push(text.length);
      }
    }
    return result;
  } as typeof emit;
  things.defer(() => {
    WebSocket.prototype.emit = emit;
  });
  const coordinator = await startCoordinator({
    listen: { host: "127.0.0.1", port: 0 },
    stateDir: join(dir, "c"),
    open: true,
    telemetryIntervalMs: INTERVAL_MS,
  });
  things.defer(() => coordinator.close());
  const smi = join(dir, "nvidia-smi");
  writeFileSync(smi, stampingSmi(simulator));
  chmodSync(smi, 0o755);
  writeFileSync(
    join(dir, "config.toml"),
    `name = "bench"
state_dir = "${join(dir, "s")}"
run_dir = "${join(dir, "r")}"
coordinator = { url = "${coordinator.url}" }
docker = { socket = "${join(dir, "no-engine.sock")}" }
nvidia = { smi = "${smi}" }
telemetry = { interval_ms = ${INTERVAL_MS} }
log = { level = "error" }
`,
  );
  const daemon = spawn(process.execPath, [join(root, "bin/gpunode.js"), "run", "--config", join(dir, "config.toml")], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, GPUNODE_SIM_SCENARIO: "h100x8" },
  });
  things.defer(async () => {
    daemon.kill("SIGTERM");
    if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, "exit");
  });
  const until = performance.now() + 60_000;
  while (tookMs.length < FRAMES + WARM_UP) {
    if (performance.now() > until || daemon.exitCode !== null) throw new Error(`only ${tookMs.length} frames came`);
    await sleep(50);
  }
  const took = tookMs.slice(WARM_UP).toSorted((a, b) => a - b);
  const size = median(bytes);
  const bare = await pingPong(size);
  const [p50 = 0, p99 = 0] = [took[Math.floor(took.length / 2)], took[Math.floor(took.length * 0.99)]];
  console.log(
    `nvidia-smi's write to the coordinator having it, 8 GPUs, ${size} bytes, loopback, three processes:\n  p50 ${p50.toFixed(2)} ms, ` +
      `p99 ${p99.toFixed(2)} ms (target 20 ms); bare ws, one way of a ping-pong of that size, p50 ${bare.toFixed(2)} ms: ${(p50 / bare).toFixed(1)} ×`,
  );
}

/** Half of a round trip of `size` bytes between two processes at the frames' pace, p50 in milliseconds. */
async function pingPong(size: number): Promise<number> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const code = `import { WebSocket } from ${JSON.stringify(import.meta.resolve("ws"))};
const socket = new WebSocket("ws://127.0.0.1:${port}", { perMessageDeflate: false });
socket.on("message", (data) => socket.send(data.toString()));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "inherit" });
  const [socket] = (await once(server, "connection")) as [WebSocket];
  const text = "x".repeat(size);
  const took: number[] = [];
  for (let round = 0; round < FRAMES; round += 1) {
    await sleep(INTERVAL_MS / 5);
    const began = performance.now();
    socket.send(text);
    await once(socket, "message");
    took.push((performance.now() - began) / 2);
  }
  socket.terminate();
  server.close();
  if (child.exitCode === null) await once(child, "exit");
  return median(took.slice(WARM_UP));
}
