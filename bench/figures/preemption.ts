import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { bootSystemd, canBootSystemd } from "../../test/support/booted-systemd.ts";
import { type Echo, startEcho } from "../lib/echo.ts";
import {
  alternating,
  type Bench,
  type BenchEngine,
  CannotRun,
  type Measured,
  quantile,
  type Round,
} from "../lib/figure.ts";
import { nextFrame } from "../lib/frames.ts";
import { type BenchNode, benchNode } from "../lib/node.ts";

const ROUNDS = 5;
const NOTICES = 60;
const WARM_UP = 3;
const STOPS = 11;
const SHUTDOWNS = 15;
/** The node has come to rest by then, as it has when its owner comes home: what is measured is the notice, not the wait behind a start. */
const REST_MS = 150;
/** About what a notice takes on the wire. */
const NOTICE_BYTES = 400;

let given = 0;

/** From the trigger to the coordinator having the notice, beside a loopback web socket's round trip. */
export const preemption: Bench = {
  key: "preemption",
  figures: ["owner's reclaim to notice at the coordinator, p99", "coordinator's preempt to notice at it, p99"],
  async run({ root, engine: open }) {
    const engine = await open();
    await using node = await benchNode({ root, socket: engine.socket, intervalMs: 5000 });
    await using echo = await startEcho();
    node.start();
    await node.connected();
    const owner = await notices(this.figures[0] ?? "", node, engine, echo, async () => {
      await node.local.reclaim({ graceSeconds: 0 });
      return async () => void (await node.local.resume());
    });
    const coordinator = await notices(this.figures[1] ?? "", node, engine, echo, async (id) => {
      await node.client.preempt(id, { graceSeconds: 0 });
      return () => undefined;
    });
    return [owner, coordinator];
  },
};

type Trigger = (id: string) => Promise<() => void | Promise<void>>;

async function notices(
  figure: string,
  node: BenchNode,
  engine: BenchEngine,
  echo: Echo,
  trigger: Trigger,
): Promise<Measured> {
  for (let warm = 0; warm < WARM_UP; warm += 1) await notice(node, engine, trigger);
  const rounds: Round[] = [];
  const all: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const bare = await echo.roundTrips(NOTICES, { size: NOTICE_BYTES, pauseMs: 20 });
    const took: number[] = [];
    for (let one = 0; one < NOTICES; one += 1) took.push(await notice(node, engine, trigger));
    all.push(...took);
    rounds.push({ ours: quantile(took, 0.99), baseline: quantile(bare, 0.99) });
  }
  const note = `${NOTICES} in each run; p50 of all ${quantile(all, 0.5).toFixed(1)} ms`;
  return { figure, unit: "ms", baseline: "loopback web socket echo, p99", rounds, reach: { moreAtMost: 5 }, note };
}

/** Work that is under way and costs no container: it pulls an image that never comes whole. */
async function notice(node: BenchNode, engine: BenchEngine, trigger: Trigger): Promise<number> {
  given += 1;
  const id = `n${given}`;
  await node.client.submit({ id, image: engine.endless, gpus: { count: 1 } });
  await node.reaches(id, "pulling");
  await sleep(REST_MS);
  const noticed = nextFrame("received", '"phase":"notice"');
  const began = performance.now();
  const [after, { at }] = await Promise.all([trigger(id), noticed]);
  await node.reaches(id, "preempted");
  await after();
  return at - began;
}

/** How long a GPU takes to be free beside `docker stop`; the container ends at once on its signal. */
export const reclaim: Bench = {
  key: "reclaim",
  figures: ["reclaim to the GPU being free, a job that ends on SIGTERM"],
  async run({ root, engine: open }) {
    const engine = await open();
    const docker = new Docker({ socketPath: engine.socket });
    await using node = await benchNode({ root, socket: engine.socket, intervalMs: 5000 });
    node.start();
    await node.connected();
    const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"];
    const ours = async () => {
      given += 1;
      const id = `s${given}`;
      await node.client.submit({ id, image: engine.image, command, gpus: { count: 1 } });
      await node.reaches(id, "running");
      const free = nextFrame("received", '"phase":"finished"');
      const began = performance.now();
      await node.local.reclaim();
      const took = (await free).at - began;
      await node.local.resume();
      return took;
    };
    const theirs = async () => {
      const container = await docker.createContainer({ Image: engine.image, Cmd: command });
      await container.start();
      await sleep(300);
      const began = performance.now();
      await container.stop({ t: 10 });
      const took = performance.now() - began;
      await container.remove({ force: true });
      return took;
    };
    const rounds = await alternating({ rounds: STOPS, warmUp: 1 }, ours, theirs);
    const figure = this.figures[0] ?? "";
    return [{ figure, unit: "ms", baseline: "docker stop", rounds, reach: { moreAtMost: 300 } }];
  },
};

/** The notice at `systemctl stop`, by a real systemd, counted from the daemon's own word of the signal. */
export const shutdown: Bench = {
  key: "shutdown",
  figures: ["systemctl stop to notice at the coordinator, from the signal"],
  async run({ root, engine: open }) {
    if (!canBootSystemd) throw new CannotRun("no systemd can be booted here (it takes root and systemd-nspawn)");
    const engine = await open();
    await using site = await benchNode({ root, socket: engine.socket, intervalMs: 5000 });
    const node = "/usr/local/bin/node";
    await using machine = await bootSystemd([
      { from: root, to: "/opt/gpunode" },
      { from: process.execPath, to: node },
      { from: engine.socket, to: "/run/docker.sock", writable: true },
    ]);
    await machine.run("groupadd", "--non-unique", "--gid", String(statSync(engine.socket).gid), "docker");
    const smi = "/opt/gpunode/bin/nvidia-smi-sim.js";
    const url = site.coordinatorUrl;
    const config = `name = "booted"\ncoordinator = { url = "${url}" }\nnvidia = { smi = "${smi}" }\nnetwork = { isolate_lan = false }\nmetrics = { listen = "off" }\nlog = { format = "json" }\npolicy = { allow_root = true }\n`;
    await machine.write("/etc/gpunode/config.toml", config);
    const rounds: Round[] = [];
    for (let round = -1; round < SHUTDOWNS; round += 1) {
      if (round < 0) await machine.run(node, "/opt/gpunode/bin/gpunode.js", "service", "install");
      else {
        // So many starts in five minutes are too many for the unit.
        await machine.run("systemctl", "reset-failed", "gpunode.service");
        await machine.run("systemctl", "start", "gpunode.service");
      }
      await site.connected();
      const id = `d${round + 1}`;
      await site.client.submit({ id, image: engine.endless, gpus: { count: 1 } });
      await site.reaches(id, "pulling");
      const noticed = nextFrame("received", '"phase":"notice"');
      await machine.run("systemctl", "stop", "gpunode.service");
      const at = performance.timeOrigin + (await noticed).at;
      const log = await machine.run("journalctl", "--unit=gpunode.service", "--output=cat", "--no-pager");
      const signalled = log.split("\n").findLast((line) => line.includes('"signal":"SIGTERM"')) ?? "{}";
      if (round >= 0) rounds.push({ ours: at - Date.parse((JSON.parse(signalled) as { time: string }).time) });
      await site.reaches(id, "preempted");
    }
    return [{ figure: this.figures[0] ?? "", unit: "ms", rounds, reach: { atMost: 25 } }];
  },
};
