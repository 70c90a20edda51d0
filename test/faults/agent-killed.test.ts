import { describe, expect, test } from "vitest";
import { Site } from "../agent/rig.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { contradictions, heldEvents } from "./truth.ts";

/** Points at which the daemon is killed while a workload goes through its life, and what that life is. */
const LIVES = {
  succeeds: { command: ["sh", "-c", "echo begun; sleep 1.5; echo done"], end: { state: "succeeded", exitCode: 0 } },
  fails: { command: ["sh", "-c", "sleep 1; exit 7"], end: { state: "failed", exitCode: 7 } },
  released: { command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"], end: { state: "stopped" } },
} as const;

const POINTS: readonly (readonly [string, keyof typeof LIVES])[] = [
  ["commit:accepted:before", "succeeds"],
  ["commit:accepted:after", "succeeds"],
  ["commit:pulling:before", "succeeds"],
  ["commit:pulling:after", "succeeds"],
  ["engine:POST /images/create:sent", "succeeds"],
  ["commit:starting:after", "fails"],
  ["engine:POST /containers/create:sent", "succeeds"],
  ["engine:POST /containers/create:answered", "succeeds"],
  ["engine:POST /containers/[0-9a-f]+/start:sent", "succeeds"],
  ["engine:POST /containers/[0-9a-f]+/start:answered", "fails"],
  ["commit:running:before", "succeeds"],
  ["commit:running:after", "succeeds"],
  ["commit:succeeded:before", "succeeds"],
  ["commit:succeeded:after", "succeeds"],
  ["commit:failed:before", "fails"],
  ["commit:stopping:before", "released"],
  ["commit:stopping:after", "released"],
  ["commit:stopped:before", "released"],
  ["commit:stopped:after", "released"],
  ["engine:DELETE /containers/[0-9a-f]+:sent", "fails"],
  ["engine:DELETE /containers/[0-9a-f]+:answered", "succeeds"],
];

describe.runIf(haveEngine)("an agent killed", { timeout: 120_000 }, () => {
  test.each(POINTS)("at %s: the workload %s all the same, once, and both sides agree", async (killAt, life) => {
    const image = await pushImage("faults/life:1", await smallImage());
    await using site = await Site.open({ killAt });
    const { command, end } = LIVES[life];
    await site.client.submit({ id: "life", image, command, gpus: { count: 1 }, stop: { graceSeconds: 5 } });
    const isReleased = life === "released";
    if (isReleased) {
      await site.reaches("life", "running");
      await site.client.release("life");
    }
    expect(await site.rig.gone(), "killed at the point named").toBe("SIGKILL");
    site.rig.start();
    await site.rig.until(() => true);
    const view = await site.ends("life");
    expect(view).toMatchObject(end);
    // The last words (usage) follow the end within a moment.
    const wrong = async () => contradictions(await heldEvents(site.apiUrl), { allEnded: true });
    await expect.poll(wrong, { timeout: 10_000 }).toEqual([]);
    const events = await heldEvents(site.apiUrl);
    // The container of a workload that has ended goes, and none was made twice.
    const ids = new Set(events.flatMap((event) => (event.kind === "workload" ? (event.containerId ?? []) : [])));
    expect(ids.size).toBeLessThanOrEqual(1);
    await expect
      .poll(async () => (await docker().listContainers({ all: true })).filter(({ Id }) => ids.has(Id)), {
        timeout: 10_000,
      })
      .toEqual([]);
  });
});
