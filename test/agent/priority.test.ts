import { randomBytes } from "node:crypto";
import { describe, expect, onTestFinished, test } from "vitest";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, patiently, Site } from "./rig.ts";

describe.runIf(haveEngine)("priorities", () => {
  const sh = (script: string) => ["sh", "-c", script];
  const oneGpu = JSON.stringify({ gpus: [{ model: "rtx-4090" }] });

  test("inference takes the GPU from training, which checkpoints, and resumes from there when it is free", async () => {
    const image = await pushImage("agent/priority:1", await smallImage());
    // A cache outlives its workload; nobody else's may be found here, and this one goes with the test.
    const owner = `o${randomBytes(6).toString("hex")}`;
    onTestFinished(() => docker().getVolume(`gpunode-cache-owner-${owner.length}-${owner}-work`).remove());
    await using site = await Site.open({ scenario: oneGpu });
    // Goes on where its checkpoint says; without one it trains until it is stopped.
    const train = sh(
      'trap "exit 9" TERM; if [ -f /kept/step ]; then echo "resumed at step $(cat /kept/step) with $TOKEN"; exit 0; fi; ' +
        "echo from the beginning; while :; do sleep 0.1; done",
    );
    await site.client.submit({
      id: "train",
      owner,
      image,
      command: train,
      gpus: { count: 1 },
      priority: 10,
      secretEnv: { TOKEN: "hush" },
      caches: [{ name: "work", path: "/kept" }],
      stop: { graceSeconds: 10, checkpoint: { exec: sh("echo 41 > /kept/step"), timeoutSeconds: 10 } },
      onPreempt: "requeue",
    });
    const [uuid] = (await site.reaches("train", "running")).gpus;

    // Not for an equal.
    const equal = await site.client.submit({
      id: "equal",
      image,
      command: sh("true"),
      gpus: { count: 1 },
      priority: 10,
    });
    expect(equal.state).toBe("pending");
    await site.client.release("equal");

    await site.client.submit({
      id: "infer",
      image,
      command: sh('echo "on $NVIDIA_VISIBLE_DEVICES"; trap "exit 0" TERM; while :; do sleep 0.1; done'),
      gpus: { count: 1 },
      priority: 500,
    });
    const infer = await site.reaches("infer", "running");
    expect(infer.gpus).toEqual([uuid]);

    const waiting = await site.reaches("train", "pending");
    expect(waiting).toMatchObject({ generation: 2, message: expect.stringContaining("0 of 1 fitting GPUs are free") });
    const told = waiting.events.map(({ kind, phase, state, cause, reason }) => [kind, phase ?? state, cause ?? reason]);
    expect(told.filter(([kind, what]) => kind === "preemption" || what === "stopping" || what === "preempted")).toEqual(
      [
        ["preemption", "notice", "priority"],
        ["workload", "stopping", "priority"],
        ["preemption", "checkpointed", "priority"],
        ["workload", "preempted", "priority"],
        ["preemption", "finished", "priority"],
      ],
    );
    expect(waiting.events.find(({ kind }) => kind === "preemption")).toMatchObject({
      workloads: ["train"],
      gpus: [uuid],
      message: "workload infer of priority 500 takes its GPU",
    });
    // It had the GPU to itself: the one is over before the other runs.
    const seqOf = (view: typeof infer, state: string) =>
      Number(view.events.find((event) => event.state === state)?.seq);
    expect(seqOf(waiting, "preempted")).toBeLessThan(seqOf(infer, "running"));

    await site.client.release("infer");
    expect((await site.ends("infer")).state).toBe("stopped");
    const done = await site.ends("train");
    expect(done).toMatchObject({ state: "succeeded", generation: 2, gpus: [uuid] });
    expect(course(done).states).toEqual([
      ...["accepted", "pulling", "starting", "running", "stopping", "preempted"],
      ...["accepted", "pulling", "starting", "running", "succeeded"],
    ]);
    expect(site.rig.gpunode("logs", "train").stdout).toBe("resumed at step 41 with hush\n");
    expect(site.rig.gpunode("logs", "infer").stdout).toBe(`on ${uuid}\n`);
  });

  test("where the owner does not want that, everyone waits for the GPU as before", async () => {
    const image = await pushImage("agent/priority:1", await smallImage());
    await using site = await Site.open({ scenario: oneGpu, more: "preemption = { priority = false }" });
    await site.client.submit({ id: "first", image, command: sh("sleep 2"), gpus: { count: 1 }, priority: 10 });
    await site.reaches("first", "running");
    const urgent = await site.client.submit({
      id: "urgent",
      image,
      command: sh("true"),
      gpus: { count: 1 },
      priority: 900,
    });
    expect(urgent.state).toBe("pending");
    expect((await site.ends("first")).state).toBe("succeeded");
    expect((await site.ends("urgent")).state).toBe("succeeded");
    await patiently(() => (site.rig.status().workloads.every(({ state }) => state === "succeeded") ? true : undefined));
  });
});
