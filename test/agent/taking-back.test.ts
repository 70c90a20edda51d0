import { describe, expect, test } from "vitest";
import { startRegistry } from "../../src/demo/registry.ts";
import { containersLeft, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, Site } from "./rig.ts";
import { sh, stays, story, tells } from "./story.ts";

describe.runIf(haveEngine)("the owner takes GPUs back", () => {
  test("one GPU: its job is told and goes, the other goes on; it is lent again on the owner's word", async () => {
    const image = await pushImage("agent/back:1", await smallImage());
    await using site = await Site.open();
    for (const id of ["a", "b"]) {
      await site.client.submit({ id, image, command: stays, gpus: { count: 1 }, stop: { graceSeconds: 5 } });
      await site.reaches(id, "running");
    }
    const { gpus, workloads } = site.rig.status();
    const held = workloads.find(({ id }) => id === "a")?.gpus[0];
    const index = String(gpus.find(({ uuid }) => uuid === held)?.index);

    const { status, stdout } = site.rig.gpunode("reclaim", "--gpu", index);
    expect([status, stdout]).toEqual([
      0,
      `Taking back GPU ${index} until "gpunode resume".\n  a is told and saves its work, for 5 s at most …\n  a is gone (preempted)\nFree: GPU ${index}.\n`,
    ]);
    expect(course(await site.ends("a")).last).toMatchObject({ state: "preempted", reason: "owner", exitCode: 0 });
    const shown = site.rig.gpunode("status").stdout;
    expect(shown).toMatch(/^node +rig is available/m);
    expect(shown).toMatch(new RegExp(`^Not lent\\n {2}GPU ${index}: taken back by its owner$`, "m"));
    await tells(site, "draining owner 1", "notice owner", "finished owner");

    await site.client.submit({ id: "c", image, command: sh("true"), gpus: { count: 1 } });
    expect((await site.client.workload("c")).state).toBe("pending");
    expect(site.rig.gpunode("resume", "--gpu", index).stdout).toBe(`GPU ${index}: lent again.\n`);
    expect((await site.ends("c")).state).toBe("succeeded");
    expect((await site.client.workload("b")).state).toBe("running");
    expect((await story(site)).at(-1)).toBe("available owner 1");
    await site.client.release("b");
    await site.ends("b");
  });

  test("all of the machine for a while: kept over a crash, and lent again by itself", async () => {
    const image = await pushImage("agent/back:1", await smallImage());
    await using site = await Site.open();
    await site.client.submit({ id: "cpu", image, command: stays });
    await site.reaches("cpu", "running");
    expect(site.rig.gpunode("reclaim", "--for", "0.1m").stdout).toMatch(
      /until .*\n.*\n.*gone \(preempted\)\nIt is all yours/,
    );
    await site.rig.end("SIGKILL");
    site.rig.start();
    const held = await site.rig.until(({ holds, connection }) => holds.length > 0 && connection.state === "connected");
    expect(held).toMatchObject({
      node: { state: "draining" },
      holds: [{ cause: "owner", until: expect.any(String) as string }],
    });
    const refused = await site.client.submit({ id: "next", image, command: sh("true") });
    expect(refused.state).toBe("pending");
    expect((await site.ends("next")).state).toBe("succeeded");
    expect(site.rig.status().holds).toEqual([]);
    expect((await story(site)).at(-1)).toBe("available owner");
  });

  test("while its image is still being pulled, and nothing is left of it", async () => {
    await using registry = await startRegistry();
    const slow = { bytesPerSecond: 1024 * 1024 };
    const image = registry.add("agent/slow:1", await smallImage({ paddingBytes: 60 * 1024 * 1024 }), slow);
    await using site = await Site.open();
    await site.client.submit({ id: "new", image, command: stays, gpus: { count: 1 } });
    await site.reaches("new", "pulling");
    expect(site.rig.gpunode("drain").status).toBe(0);
    const view = await site.ends("new");
    expect(course(view).states).toEqual(["accepted", "pulling", "preempted"]);
    expect(await containersLeft(`org.gpunode.node=${site.rig.nodeId}`)).toEqual([]);
  });

  test("without a coordinator in reach nobody waits for one", async () => {
    const image = await pushImage("agent/back:1", await smallImage());
    await using site = await Site.open();
    await site.client.submit({ id: "w", image, command: stays, gpus: { count: 1 } });
    await site.reaches("w", "running");
    await site.goAway();
    await site.rig.until(({ connection }) => connection.state !== "connected");
    expect(site.rig.gpunode("reclaim").stdout).toMatch(/w is gone \(preempted\)/);
    await site.comeBack();
    await site.ends("w");
    await tells(site, "draining owner", "notice owner", "finished owner");
  });

  test("the coordinator's resume lifts its own drain and not the owner's", async () => {
    await using site = await Site.open();
    const node = (await site.connected()).id;
    await site.client.drain(node, {});
    site.rig.gpunode("drain");
    await site.client.resume(node);
    const { holds } = await site.rig.until((snapshot) => snapshot.holds.length === 1);
    expect(holds).toMatchObject([{ cause: "owner", message: "drained by its owner" }]);
    expect(site.rig.gpunode("resume").stdout).toBe("Available: workloads are accepted again.\n");
  });

  test("there is no such GPU", async () => {
    await using site = await Site.open();
    const { status, stderr } = site.rig.gpunode("reclaim", "--gpu", "7");
    expect([status, stderr]).toEqual([1, "gpunode: there is no GPU 7; this machine has: 0, 1\n"]);
  });
});

describe.runIf(haveEngine)("a provider who lets no coordinator take work back", () => {
  test("refuses preempt and drain by the rule's name", async () => {
    const image = await pushImage("agent/back:1", await smallImage());
    await using site = await Site.open({ more: "preemption = { coordinator = false }" });
    await site.client.submit({ id: "w", image, command: stays });
    await site.reaches("w", "running");
    const node = (await site.connected()).id;
    await expect(site.client.preempt("w")).rejects.toThrow(/preemption.coordinator is false/);
    await expect(site.client.drain(node, {})).rejects.toThrow(/preemption.coordinator is false/);
    await site.client.release("w");
    expect((await site.ends("w")).state).toBe("stopped");
  });
});
