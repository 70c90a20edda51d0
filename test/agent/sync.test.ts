import { describe, expect, test } from "vitest";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { FakeCoordinator } from "../support/fake-coordinator.ts";
import { eventsOf, job, told } from "./frames.ts";
import { Rig } from "./rig.ts";

describe.runIf(haveEngine)("the complete desired set", () => {
  test("what is missing starts, what matches stays, what is not listed ends, a higher generation replaces", async () => {
    const image = await pushImage("agent/sync:1", await smallImage());
    await using coordinator = await FakeCoordinator.start();
    await using rig = new Rig({ url: coordinator.url });
    rig.start();
    const first = await coordinator.next(20_000);
    await first.join();
    const gpus = { count: 1 };
    const stay = job("stay", { image, gpus });

    // One entry that cannot be taken harms no other.
    const odd = job("odd", { image, gpus: { count: 9 } });
    first.send({ type: "sync", id: "one", workloads: [odd, stay, job("leave", { image, gpus })] });
    expect(await first.next("reply")).toMatchObject({ ref: "one", ok: true });
    const { containerId } = await told(first, { workload: "stay", state: "running" });
    const left = await told(first, { workload: "leave", state: "running" });
    expect(await told(first, { workload: "odd", state: "rejected" })).toMatchObject({ reason: "no_matching_gpu" });

    first.send({ type: "sync", workloads: [stay] });
    await told(first, { workload: "leave", state: "stopped", reason: "not_assigned" });
    expect(await isRunning(left.containerId)).toBe(false);
    expect(await isRunning(containerId)).toBe(true);

    // The next session names what there is, and the same set changes nothing.
    coordinator.cut();
    const second = await coordinator.next(20_000);
    const hello = await second.start({}, [stay]);
    expect(hello.workloads).toContainEqual({ id: "stay", generation: 1, state: "running" });
    const newer = { ...stay, generation: 2 };
    expect(await second.command({ type: "assign", workload: stay })).toMatchObject({ ok: true });
    expect(await isRunning(containerId)).toBe(true);
    expect(eventsOf(first, "stay").filter(({ state }) => state === "running")).toHaveLength(1);

    second.send({ type: "sync", workloads: [newer] });
    const ended = await told(second, { workload: "stay", generation: 1, state: "stopped", reason: "replaced" });
    const replaced = await told(second, { workload: "stay", generation: 2, state: "running" });
    expect(replaced.containerId).not.toBe(containerId);
    expect(ended.seq).toBeLessThan(replaced.seq);
    expect(await isRunning(containerId)).toBe(false);

    second.send({ type: "sync", workloads: [] });
    await told(second, { workload: "stay", generation: 2, state: "stopped", reason: "not_assigned" });
  });
});

async function isRunning(containerId: string): Promise<boolean> {
  const found = await docker()
    .getContainer(containerId)
    .inspect()
    .catch(() => undefined);
  return found?.State.Running === true;
}
