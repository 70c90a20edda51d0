import { describe, expect, test } from "vitest";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { FakeCoordinator } from "../support/fake-coordinator.ts";
import { job, told } from "./frames.ts";
import { Rig } from "./rig.ts";

const MAX_FRAME_BYTES = 1024 * 1024;

describe.runIf(haveEngine)("a coordinator that sends what it should not", () => {
  test("each bad frame is answered with its code; the session and what runs go on", async () => {
    const image = await pushImage("agent/frames:1", await smallImage());
    await using coordinator = await FakeCoordinator.start();
    await using rig = new Rig({ url: coordinator.url });
    rig.start();
    const session = await coordinator.next(20_000);
    await session.join();

    // Out of order: `sync` comes first in every session.
    const early = await session.command({ type: "assign", workload: job("early", { image }) });
    expect(early).toMatchObject({
      ok: false,
      error: { code: "bad_message", message: expect.stringContaining("sync") },
    });

    session.send({ type: "sync", workloads: [job("works", { image })] });
    const { containerId } = await told(session, { workload: "works", state: "running" });
    const before = await docker().getContainer(containerId).inspect();

    const complaint = async (frame: object | string) => {
      session.send(frame);
      return (await session.next("error")).code;
    };
    expect(await complaint("{ this is no JSON")).toBe("bad_message");
    expect(await complaint("[1, 2, 3]")).toBe("bad_message");
    expect(await complaint({ type: "assign", workload: job("nameless", { image }) })).toBe("bad_message");
    expect(await complaint({ type: "ack", seq: "seven" })).toBe("bad_message");
    expect(await complaint({ type: "ack", seq: 1_000_000 })).toBe("bad_message");
    expect(await complaint({ type: "teleport" })).toBe("unsupported");
    expect(await complaint({ type: "resume", padding: "x".repeat(MAX_FRAME_BYTES) })).toBe("bad_message");

    const refusal = async (frame: { type: string; [key: string]: unknown }) =>
      (await session.command(frame)).error?.code;
    expect(await refusal({ type: "teleport" })).toBe("unsupported");
    expect(await refusal({ type: "assign" })).toBe("bad_message");
    expect(await refusal({ type: "assign", workload: { ...job("odd", { image }), generation: -1 } })).toBe(
      "bad_message",
    );
    expect(await refusal({ type: "assign", workload: job("../../odd", { image }) })).toBe("bad_message");
    expect(await refusal({ type: "release", workload: "nobody" })).toBe("unknown_workload");
    expect(await refusal({ type: "logs", workload: "nobody" })).toBe("unknown_workload");
    expect(await refusal({ type: "assign", workload: job("works", { image, generation: 0 }) })).toBe(
      "stale_generation",
    );
    expect(await refusal({ type: "assign", workload: job("wide", { image, gpus: { count: 9 } }) })).toBe(
      "no_matching_gpu",
    );

    // All of it left the session and the workload as they were, and a good command is still carried out.
    expect(session.closed).toBeUndefined();
    const after = await docker().getContainer(containerId).inspect();
    expect(after.State).toMatchObject({ Running: true, StartedAt: before.State.StartedAt });
    expect(rig.status().workloads.map(({ id, state }) => ({ id, state }))).toEqual([{ id: "works", state: "running" }]);
    expect(await session.command({ type: "release", workload: "works" })).toMatchObject({ ok: true });
    await told(session, { workload: "works", state: "stopped", reason: "released" });
  });
});
