import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, everythingIn, patiently, Site } from "./rig.ts";

describe.runIf(haveEngine)("a job, from submit to done", () => {
  let site: Site;
  let image: string;
  beforeAll(async () => {
    image = await pushImage("agent/job:1", await smallImage());
    site = await Site.open();
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
  });
  const sh = (script: string) => ["sh", "-c", script];

  test("runs on the GPU it was given, passes every state and leaves its figures", async () => {
    await site.client.submit({
      id: "train",
      image,
      command: sh('echo "on $NVIDIA_VISIBLE_DEVICES"; sleep 2'),
      gpus: { count: 1 },
    });
    const running = await site.reaches("train", "running");
    const [uuid] = running.gpus;
    const node = (await site.client.nodes())[0];
    await patiently(async () =>
      (await site.client.nodes())[0]?.gpus?.some((gpu) => gpu.uuid === uuid && gpu.allocatedTo === "train")
        ? true
        : undefined,
    );
    expect(site.rig.status().workloads[0]).toMatchObject({ id: "train", state: "running", gpus: [uuid] });
    expect((await site.client.telemetry(node?.id ?? "")).gpus.map((gpu) => gpu.uuid)).toContain(uuid);
    const done = await site.ends("train");
    expect(course(done).states).toEqual(["accepted", "pulling", "starting", "running", "succeeded"]);
    expect(course(done).last).toMatchObject({ exitCode: 0, oomKilled: false, gpus: [uuid] });
    expect(course(done).last.imageDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(course(done).last.timings).toMatchObject({ pullMs: expect.any(Number), startMs: expect.any(Number) });
    expect(site.rig.gpunode("logs", "train").stdout).toBe(`on ${uuid}\n`);
    // Sequence numbers at the coordinator have no hole.
    const seqs = done.events.map(({ seq }) => seq);
    expect(new Set(seqs).size).toBe(seqs.length);
  });

  test("three jobs on two GPUs: none is ever shared", async () => {
    const script = sh('echo "$NVIDIA_VISIBLE_DEVICES"; sleep 1');
    const ids = ["a", "b", "c"];
    for (const id of ids) await site.client.submit({ id, image, command: script, gpus: { count: 1 } });
    const ended = await Promise.all(ids.map((id) => site.ends(id)));
    const spans = ended.map((view) => {
      const at = (state: string) => Date.parse(String(view.events.find((event) => event.state === state)?.at));
      return { gpu: view.gpus[0], from: at("running"), to: at("succeeded") };
    });
    for (const one of spans) {
      for (const other of spans) {
        if (one === other || one.gpu !== other.gpu) continue;
        expect(one.to <= other.from || other.to <= one.from, JSON.stringify([spans, ended])).toBe(true);
      }
    }
    expect(spans.every(({ from, to }) => to >= from)).toBe(true);
  });

  test.each([
    ["exit code", { command: sh("exit 3") }, "failed", { reason: "exit_code", exitCode: 3 }],
    ["no such command", { command: ["/no/such/command"] }, "failed", { reason: "command_not_found" }],
    [
      "run time",
      { command: sh("sleep 60"), maxRuntimeSeconds: 1, stop: { graceSeconds: 0 } },
      "failed",
      { reason: "max_runtime" },
    ],
    [
      "memory",
      { command: sh("tail /dev/zero"), resources: { memoryMiB: 16 } },
      "failed",
      { reason: "oom_killed", oomKilled: true },
    ],
  ])("an end by %s is told as it was", async (name, spec, state, last) => {
    const id = `end-${name.replaceAll(" ", "-")}`;
    await site.client.submit({ id, image, ...spec });
    const view = await site.ends(id);
    expect(view.state, JSON.stringify(course(view).last)).toBe(state);
    expect(course(view).last).toMatchObject(last);
  });

  test("an image that is not there fails with the registry's words", async () => {
    await site.client.submit({ id: "missing", image: image.replace("job:1", "none:1") });
    const view = await site.ends("missing");
    expect(course(view).last).toMatchObject({ state: "failed", reason: "pull_failed" });
    expect(String(course(view).last.message).length).toBeGreaterThan(20);
  });

  test("an image for a newer driver is rejected before anything starts, with both versions", async () => {
    const newer = await pushImage("agent/newer:1", await smallImage({ env: { NVIDIA_REQUIRE_CUDA: "cuda>=99.0" } }));
    const { rig } = site;
    await site.client.submit({ id: "newer", image: newer, gpus: { count: 1 } });
    const event = await patiently(async () =>
      (await site.client.workload("newer")).events.find(({ state }) => state === "rejected"),
    );
    expect(event).toMatchObject({ reason: "driver_too_old" });
    expect(event.message).toMatch(/cuda>=99\.0/);
    expect(event.message).toContain(String(rig.status().gpus[0]?.cudaVersion));
    await site.client.release("newer").catch(() => undefined);
  });

  test("a secret reaches the container and nothing else", async () => {
    const canary = "canary-7f3c9a51";
    await site.client.submit({
      id: "secret",
      image,
      // Only its fingerprint is named and printed: the secret itself is in `secretEnv` alone.
      command: sh('printf %s "$TOKEN" | sha256sum | cut -c1-64'),
      secretEnv: { TOKEN: canary },
    });
    expect((await site.ends("secret")).state).toBe("succeeded");
    expect(site.rig.gpunode("logs", "secret").stdout).toBe(`${createHash("sha256").update(canary).digest("hex")}\n`);
    const everywhere = `${everythingIn(site.rig.dir)}${site.rig.log}${JSON.stringify(site.rig.status())}`;
    expect(everywhere).toContain("secret");
    for (const form of [canary, Buffer.from(canary).toString("base64").slice(0, 20)]) {
      expect(everywhere).not.toContain(form);
    }
  });

  test("what is released ends, also where it ignores the signal", async () => {
    const stubborn = sh('trap "" TERM; echo up; while :; do sleep 0.1; done');
    await site.client.submit({ id: "stubborn", image, command: stubborn, stop: { graceSeconds: 1 } });
    await site.reaches("stubborn", "running");
    await site.client.release("stubborn");
    const view = await site.ends("stubborn");
    expect(course(view).last).toMatchObject({ state: "stopped", reason: "released", exitCode: 137 });
  });
});
