import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { patiently, Site } from "./rig.ts";

describe.runIf(haveEngine)("what the node has proved to be like", () => {
  const sh = (script: string) => ["sh", "-c", script];

  test("is advertised as work ends, and known to the owner and to the next daemon", { timeout: 120_000 }, async () => {
    const image = await pushImage("agent/record:1", await smallImage());
    await using site = await Site.open();
    expect((await site.client.nodes())[0]?.reliability).toBeUndefined();
    expect(site.rig.gpunode("status").stdout).not.toMatch(/^30 days/m);

    await site.client.submit({ id: "good", image, command: sh("exit 0") });
    await site.client.submit({ id: "bad", image, command: sh("exit 3") });
    await site.client.submit({ id: "taken", image, command: sh("sleep 600"), stop: { graceSeconds: 1 } });
    // It never runs here, so it says nothing about the node.
    await site.client.submit({ id: "no-image", image: `${image}-missing` });
    await Promise.all(["good", "bad", "no-image"].map((id) => site.ends(id)));
    await site.reaches("taken", "running");
    await site.client.preempt("taken", {});
    await site.ends("taken");
    const workloads = { succeeded: 1, failed: 1, stopped: 0, preempted: 1, lost: 0 };
    const preemptions = [{ cause: "coordinator", count: 1, noticeSeconds: { min: 1, p50: 1 } }];
    const advertised = () =>
      patiently(async () => {
        const [node] = await site.client.nodes();
        return node?.connected && node.reliability?.workloads.preempted === 1 ? node.reliability : undefined;
      });
    expect(await advertised()).toMatchObject({ workloads, preemptions });
    expect(site.rig.status().reliability).toMatchObject({ workloads, preemptions });

    await site.rig.end("SIGKILL");
    // So long at least nobody is there.
    await sleep(1000);
    site.rig.start();
    await patiently(async () => ((await site.client.nodes())[0]?.connected ? true : undefined));
    const after = await patiently(async () => {
      const reliability = await advertised();
      return reliability.downSeconds > 0 ? reliability : undefined;
    });
    expect(after).toMatchObject({ workloads, preemptions });
    expect(site.rig.gpunode("status").stdout).toMatch(/^30 days +1 done, 1 failed, 1 taken back$/m);
  });
});
