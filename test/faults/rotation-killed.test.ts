import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { patiently, Site } from "../agent/rig.ts";
import { gpunode } from "../cli/gpunode.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";

/** Points at which the daemon is killed while it takes a new key, and whether the coordinator knew the new one by then. */
const POINTS = [
  "file:renameSync identity\\.pem\\.next$:before",
  "file:renameSync identity\\.pem\\.next$:after",
  "file:renameSync identity\\.pem$:before",
  "file:renameSync identity\\.pem$:after",
  "file:unlinkSync identity\\.pem\\.next$:before",
  "file:unlinkSync identity\\.pem\\.next$:after",
];

describe.runIf(haveEngine)("an agent killed while it takes a new key", { timeout: 120_000 }, () => {
  test.each(POINTS)(
    "at %s: it comes back as one of the two, with its work, and takes the key in the end",
    async (killAt) => {
      const image = await pushImage("faults/life:1", await smallImage());
      await using site = await Site.open({ killAt });
      const old = (await site.connected()).id;
      const { rig, client } = site;
      await client.submit({
        id: "stays",
        image,
        command: ["sleep", "600"],
        gpus: { count: 1 },
        stop: { graceSeconds: 1 },
      });
      const { containerId = "" } = await site.reaches("stays", "running");
      const rotate = () => gpunode(["enroll", "--rotate", "--config", rig.config]);
      expect((await rotate()).code).not.toBe(0);
      expect(await rig.gone(), "killed at the point named").toBe("SIGKILL");

      rig.start();
      const back = await patiently(async () => (await client.nodes()).find(({ connected }) => connected));
      if (back.id === old) expect(await rotate()).toMatchObject({ code: 0, err: "" });
      const [node, ...others] = await client.nodes();
      expect([node?.replaces?.map(({ id }) => id), others]).toEqual([[old], []]);
      expect(rig.status().node.id).toBe(node?.id);
      expect(rig.status().problems).toEqual([]);
      expect(readdirSync(join(rig.dir, "state")).filter((name) => name.startsWith("identity"))).toEqual([
        "identity.pem",
      ]);
      // The same container all along.
      expect(await site.reaches("stays", "running")).toMatchObject({ containerId, node: node?.id });
      expect((await docker().getContainer(containerId).inspect()).State.Running).toBe(true);
      await client.release("stays");
      expect(await site.ends("stays")).toMatchObject({ state: "stopped" });
    },
  );
});
