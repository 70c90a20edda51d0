import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { Sample } from "../../src/link/needs.ts";
import { eventually, fakeCoordinator, startAgent } from "./harness.ts";

async function joined() {
  const coordinator = await fakeCoordinator();
  const side = startAgent({ url: coordinator.url });
  const session = await coordinator.next();
  await session.start();
  await eventually(() => side.syncs.length === 1, "sync");
  return { coordinator, side, session };
}

function sample(loadAverage1: number, throttleReasons: string[] = []): Sample {
  const gpus = [{ uuid: "GPU-1", throttleReasons }];
  return { at: "2026-01-31T12:00:00.000Z", gpus, host: { loadAverage1 }, workloads: [] };
}

describe("telemetry", () => {
  it("goes out at once", async () => {
    const { side, session } = await joined();
    side.link.offerTelemetry(sample(1));
    expect(await session.next("telemetry")).toEqual({ type: "telemetry", ...sample(1), skipped: 0 });
  });

  it("is left out and counted where the reader is behind, and the next one that goes says how many", async () => {
    const { side, session } = await joined();
    session.socket.pause();
    const bulk = Array.from({ length: 20 }, () => "x".repeat(5000));
    for (let index = 1; index <= 400; index += 1) {
      side.link.offerTelemetry(sample(index, bulk));
      if (index % 20 === 0) await sleep(1);
    }
    expect(process.memoryUsage().arrayBuffers).toBeLessThan(64 * 1024 * 1024);
    session.socket.resume();
    let last = 400;
    await session.until(() => session.frames.find(({ type }) => type === "telemetry"), "telemetry");
    await eventually(
      () => {
        last += 1;
        side.link.offerTelemetry(sample(last));
        return session.frames.some((frame) => frame.host?.loadAverage1 > 400);
      },
      "a new sample",
      10_000,
    );
    await session.until(() => session.frames.find((frame) => frame.host?.loadAverage1 === last), "the last sample");
    const frames = session.frames.filter(({ type }) => type === "telemetry");
    const skipped = frames.reduce((sum, frame) => sum + frame.skipped, 0);
    expect(skipped).toBeGreaterThan(100);
    expect(frames.length + skipped).toBe(last);
    expect(side.link.counts()).toEqual({ sessions: 1, telemetrySent: frames.length, telemetrySkipped: skipped });
    const order = frames.map((frame) => frame.host.loadAverage1);
    expect(order).toEqual([...order].sort((a, b) => a - b));
  }, 30_000);

  it("of the time without a session is not counted", async () => {
    const { coordinator, side } = await joined();
    coordinator.cut();
    const next = await coordinator.next();
    side.link.offerTelemetry(sample(1));
    await next.start();
    side.link.offerTelemetry(sample(2));
    expect(await next.next("telemetry")).toMatchObject({ host: { loadAverage1: 2 }, skipped: 0 });
    expect(side.link.counts()).toEqual({ sessions: 2, telemetrySent: 1, telemetrySkipped: 0 });
  });

  it("too large for a frame is left out and harms nothing", async () => {
    const { side, session } = await joined();
    side.link.offerTelemetry(sample(1, ["x".repeat(1024 * 1024)]));
    side.link.offerTelemetry(sample(2));
    expect(await session.next("telemetry")).toMatchObject({ host: { loadAverage1: 2 }, skipped: 1 });
    expect(side.logged.join("\n")).toContain("over 1048576 bytes");
  });
});

describe("progress", () => {
  it("goes out twice a second at most for each workload, and the latest wins", async () => {
    const { side, session } = await joined();
    const startedAt = performance.now();
    for (let currentBytes = 0; currentBytes <= 1200; currentBytes += 1) {
      for (const workload of ["a", "b"]) {
        side.link.offerProgress({ workload, phase: "pulling", currentBytes, totalBytes: 1200 });
      }
      if (currentBytes % 10 === 0) await sleep(10);
    }
    const done = () => session.frames.find((frame) => frame.workload === "b" && frame.currentBytes === 1200);
    await session.until(done, "the last");
    const seconds = (performance.now() - startedAt) / 1000;
    for (const workload of ["a", "b"]) {
      const frames = session.frames.filter((frame) => frame.type === "progress" && frame.workload === workload);
      expect(frames[0]?.currentBytes).toBe(0);
      expect(frames.at(-1)?.currentBytes).toBe(1200);
      expect(frames.length).toBeLessThanOrEqual(2 * seconds + 1);
      expect(frames.length).toBeGreaterThanOrEqual(3);
    }
  });
});

describe("the advertisement", () => {
  it("is told again when it has changed, once for changes that come together, and not when it has not", async () => {
    const { side, session } = await joined();
    side.link.advertiseChanged();
    await sleep(400);
    expect(session.frames).toEqual([]);
    for (const state of ["draining", "available", "draining"] as const) {
      side.advertised = { ...side.advertised, state };
      side.link.advertiseChanged();
    }
    expect(await session.next("advertise")).toMatchObject({ revision: 2, state: "draining" });
    await sleep(400);
    expect(session.frames).toEqual([]);
  });

  it("begins each session, numbered on", async () => {
    const { coordinator, session } = await joined();
    session.socket.terminate();
    const next = await coordinator.next();
    next.challenge();
    next.verify(await next.next("hello"));
    next.welcome();
    expect(await next.next("advertise")).toMatchObject({ revision: 2 });
  });

  it("of a machine with very many images names as many as fit", async () => {
    const { side, session } = await joined();
    const images = Array.from({ length: 10_000 }, (_, index) => ({
      digest: `sha256:${String(index).padStart(64, "0")}`,
      tags: [`registry.example/team/image-${index}:latest`],
      sizeMiB: 1,
    }));
    side.advertised = { ...side.advertised, images };
    side.link.advertiseChanged();
    const told = (await session.next("advertise")).images;
    expect(told.length).toBeGreaterThan(1000);
    expect(told).toEqual(images.slice(0, told.length));
  });

  it("that cannot be made ends the session, not the agent", async () => {
    const coordinator = await fakeCoordinator();
    let failures = 1;
    const side = startAgent({
      url: coordinator.url,
      doors: {
        advertisement: () => {
          failures -= 1;
          if (failures >= 0) throw new Error("a bug");
          return side.advertised;
        },
      },
    });
    const session = await coordinator.next();
    session.challenge();
    await session.next("hello");
    session.welcome();
    expect(await session.end()).toMatchObject({ code: 1011 });
    await (await coordinator.next()).start();
    expect(side.sessions).toEqual(["welcome", "end", "welcome"]);
  });
});
