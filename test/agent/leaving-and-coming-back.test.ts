import { describe, expect, test } from "vitest";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, Rig, Site } from "./rig.ts";

describe.runIf(haveEngine)("leaving and coming back", () => {
  const sh = (script: string) => ["sh", "-c", script];

  test.each(["SIGTERM", "SIGKILL"] as const)(
    "after %s the work goes on, and the next daemon tells its end",
    async (signal) => {
      const image = await pushImage("agent/stay:1", await smallImage());
      await using site = await Site.open();
      await site.client.submit({ id: "stay", image, command: sh("sleep 4; exit 7"), gpus: { count: 1 } });
      const running = await site.reaches("stay", "running");
      const container = String(course(running).last.containerId);
      expect(await site.rig.end(signal)).toBe(signal === "SIGTERM" ? 0 : null);
      expect((await docker().getContainer(container).inspect()).State.Running).toBe(true);
      site.rig.start();
      const view = await site.ends("stay");
      expect(course(view)).toMatchObject({ last: { state: "failed", exitCode: 7, containerId: container } });
      expect(course(view).states.filter((state) => state === "running")).toHaveLength(1);
    },
  );

  test("an exit while no daemon runs is told with its code by the next", async () => {
    const image = await pushImage("agent/stay:1", await smallImage());
    await using site = await Site.open();
    await site.client.submit({ id: "gone", image, command: sh("sleep 1; exit 5") });
    const container = String(course(await site.reaches("gone", "running")).last.containerId);
    await site.rig.end("SIGKILL");
    await docker().getContainer(container).wait();
    site.rig.start();
    expect(course(await site.ends("gone")).last).toMatchObject({ state: "failed", exitCode: 5, reason: "exit_code" });
  });

  test("status without a daemon is exit code 3 and a sentence", async () => {
    await using rig = new Rig({});
    const { status, stderr } = rig.gpunode("status");
    expect(status).toBe(3);
    expect(stderr).toMatch(/the daemon is not running/);
  });
});
