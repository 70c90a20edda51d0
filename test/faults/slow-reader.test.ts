import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { job, told } from "../agent/frames.ts";
import { Rig } from "../agent/rig.ts";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { FakeCoordinator, type Frame } from "../support/fake-coordinator.ts";

const MIB = 1024 * 1024;
/** Lines a workload writes: 8 MiB, far more than sockets hold, and less than the engine keeps of a container's output. */
const LINES = 120_000;

describe.runIf(haveEngine)("a coordinator that reads nothing for a while", () => {
  test("costs the node no memory; then telemetry is of now, and no line of output is missing", async () => {
    const image = await pushImage("faults/slow:1", await smallImage());
    await using coordinator = await FakeCoordinator.start();
    await using rig = new Rig({ url: coordinator.url });
    rig.start();
    const session = await coordinator.next(20_000);
    await session.join({ heartbeatSeconds: 60, telemetryIntervalMs: 100 });
    const script = `awk 'BEGIN { for (i = 0; i < ${LINES}; i++) print i " ${"x".repeat(60)}" }'; sleep 60`;
    session.send({
      type: "sync",
      workloads: [job("loud", { image, command: ["sh", "-c", script], stop: { graceSeconds: 0 } })],
    });
    await told(session, { workload: "loud", state: "running" });
    const rssMiB = () => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${rig.pid}/status`, "utf8"))?.[1]) / 1024;
    const before = rssMiB();
    session.socket.pause();
    session.send({ type: "logs", id: "read", workload: "loud", follow: true });
    let most = 0;
    for (let second = 0; second < 20; second++) {
      // The coordinator lives: it only does not read.
      session.socket.ping();
      await sleep(1000);
      most = Math.max(most, rssMiB());
    }
    expect(most - before).toBeLessThan(64);
    session.socket.resume();
    let text = "";
    let lastTelemetry: Frame | undefined;
    let skipped = 0;
    const deadline = performance.now() + 60_000;
    while (!text.includes(`${LINES - 1} x`) && performance.now() < deadline) {
      for (const frame of session.frames.splice(0)) {
        if (frame.type === "log") text += frame.data;
        if (frame.type === "telemetry") {
          lastTelemetry = frame;
          skipped += frame.skipped;
        }
      }
      await sleep(20);
    }
    expect(text.length).toBeGreaterThan(7 * MIB);
    const numbers = text.split("\n", LINES).map((line) => Number(line.slice(0, line.indexOf(" "))));
    expect(numbers.every((number, index) => number === index)).toBe(true);
    expect(skipped).toBeGreaterThan(50);
    expect(Date.now() - Date.parse(lastTelemetry?.at)).toBeLessThan(10_000);
    session.send({ type: "sync", workloads: [] });
    await told(session, { workload: "loud", state: "stopped" });
  }, 150_000);
});
