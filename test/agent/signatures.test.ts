import { rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { startRegistry } from "../../src/demo/registry.ts";
import { cosignStandIn } from "../support/cosign.ts";
import { docker, haveEngine, smallImage } from "../support/engine.ts";
import { course, Site } from "./rig.ts";

const KEY = "/etc/gpunode/cosign.pub";
const command = ["sh", "-c", 'echo "I am $WHO"; sleep 3'];

describe.runIf(haveEngine)("a provider who wants signatures", () => {
  test("runs signed images, the very digest that was verified, and refuses the others by the rule's name", async () => {
    using cosign = cosignStandIn();
    await using registry = await startRegistry();
    const [good, evil] = [await smallImage({ env: { WHO: "good" } }), await smallImage({ env: { WHO: "evil" } })];
    const signed = registry.add("team/app:1", good);
    const unsigned = registry.add("team/other:1", evil);
    cosign.sign({ [KEY]: [good.manifest.digest] });
    await using site = await Site.open({ more: `policy = { cosign_keys = ["${KEY}"] }`, env: { PATH: cosign.path } });
    expect((await site.connected())?.policy).toMatchObject({ signedImages: true });

    await site.client.submit({ id: "signed", image: signed, command });
    const running = await site.reaches("signed", "running");
    // While cosign looked the tag may have been moved: what runs was named by its digest.
    registry.add("team/app:1", evil);
    const { Image } = await docker()
      .getContainer(String(course(running).last.containerId))
      .inspect();
    expect(Image).toBe(good.config.digest);
    const done = await site.ends("signed");
    expect(done.state).toBe("succeeded");
    expect(site.rig.gpunode("logs", "signed").stdout).toBe("I am good\n");
    const [call] = cosign.calls();
    expect(call?.args.at(-1)).toBe(`${signed.replace(/:1$/, "")}@${good.manifest.digest}`);

    // Every event from the pull on says which image it is.
    const told = done.events.filter(({ kind }) => kind === "workload");
    const digests = told.map(({ state, imageDigest }) => [state, imageDigest]);
    const { digest } = good.manifest;
    expect(digests).toEqual([
      ["accepted", undefined],
      ["pulling", undefined],
      ["starting", digest],
      ["running", digest],
      ["succeeded", digest],
    ]);

    for (const image of [unsigned, signed]) {
      const id = image === signed ? "moved" : "unsigned";
      await site.client.submit({ id, image, command });
      const refused = await site.rig.until(({ workloads }) =>
        workloads.some((workload) => workload.id === id && workload.state === "rejected"),
      );
      const { reason, message } = refused.workloads.find((workload) => workload.id === id) ?? {};
      expect(reason).toBe("image_not_allowed");
      expect(message).toContain(
        `policy.cosign_keys: no signature of ${image.replace(/:1$/, "")}@${evil.manifest.digest}`,
      );
      await site.client.release(id).catch(() => undefined);
    }
    expect((await docker().listContainers({ all: true, filters: { ancestor: [evil.config.digest] } })).length).toBe(0);
  }, 120_000);

  test("and has no cosign runs nothing, and is told so", async () => {
    using cosign = cosignStandIn();
    await using registry = await startRegistry();
    const image = registry.add("team/app:1", await smallImage());
    // The same folder without cosign: node stays, for the simulated nvidia-smi.
    rmSync(join(cosign.dir, "cosign"));
    await using site = await Site.open({ more: `policy = { cosign_keys = ["${KEY}"] }`, env: { PATH: cosign.path } });
    await site.client.submit({ id: "w", image, command });
    const refused = await site.rig.until(({ workloads }) => workloads.some(({ state }) => state === "rejected"));
    expect(refused.workloads[0]).toMatchObject({
      reason: "policy_denied",
      message: expect.stringMatching(
        /policy\.cosign_keys asks for a signature .* no cosign on this node .* install cosign/,
      ),
    });
    await site.client.release("w").catch(() => undefined);
  }, 60_000);
});
