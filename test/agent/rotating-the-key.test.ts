import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { gpunode } from "../cli/gpunode.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { everythingIn, patiently, Rig, Site } from "./rig.ts";

describe.runIf(haveEngine)("gpunode enroll --rotate", { timeout: 120_000 }, () => {
  test("gives the node a new key while its work goes on; the bill verifies from end to end, on both sides", async () => {
    const image = await pushImage("agent/rotates:1", await smallImage());
    await using site = await Site.open();
    const { rig, client } = site;
    const old = (await site.connected()).id;
    await client.submit({ id: "first", image, command: ["sleep", "1"], gpus: { count: 1 } });
    await client.submit({
      id: "both",
      image,
      command: ["sleep", "600"],
      gpus: { count: 1 },
      stop: { graceSeconds: 1 },
    });
    await site.ends("first");
    const { containerId = "" } = await site.reaches("both", "running");
    const oldPem = readFileSync(join(rig.dir, "state/identity.pem"), "utf8");

    const { code, out } = await gpunode(["enroll", "--rotate", "--config", rig.config]);
    const now = await site.connected();
    expect([code, out]).toEqual([
      0,
      `This node has a new key, and is ${now.id} now. The old one (${old}) is refused.\n`,
    ]);
    expect(now.id).not.toBe(old);
    expect(rig.status().node.id).toBe(now.id);
    expect(await site.reaches("both", "running")).toMatchObject({ node: now.id, containerId });

    // Another daemon takes up the container that the old key's daemon made.
    await rig.end("SIGTERM");
    rig.start();
    await site.connected();
    expect(await site.reaches("both", "running")).toMatchObject({ node: now.id, containerId });
    expect((await docker().getContainer(containerId).inspect()).State.Running).toBe(true);
    await client.release("both");
    await site.ends("both");

    const own = await patiently(() => {
      const bill = JSON.parse(rig.gpunode("usage", "--json").stdout);
      return bill.total.records >= 2 ? bill : undefined;
    });
    expect([own.node.id, own.problems]).toEqual([now.id, []]);
    const theirs = await patiently(async () => {
      const { out } = await gpunode(["coordinator", "usage", "--json", "--coordinator", site.apiUrl]);
      const bills = JSON.parse(out);
      return bills[0]?.total.records === own.total.records ? bills : undefined;
    });
    expect(theirs).toMatchObject([{ node: { id: now.id }, problems: [] }]);
    expect(theirs).toHaveLength(1);

    expect(statSync(join(rig.dir, "state/identity.pem")).mode & 0o777).toBe(0o600);
    expect(everythingIn(rig.dir)).not.toContain(oldPem.split("\n")[1]);
  });

  test("waits for a coordinator that is away, shows that it does, and is done when it is back", async () => {
    await using site = await Site.open();
    const { rig, client } = site;
    const old = (await site.connected()).id;
    await site.goAway();
    const { status, stdout } = rig.gpunode("enroll", "--rotate", "--json");
    expect([status, JSON.parse(stdout)]).toEqual([1, { state: "pending", nodeId: old }]);
    expect(rig.status().problems.map(({ code }) => code)).toContain("key_rotation_pending");
    await site.comeBack();
    const now = await patiently(async () =>
      (await client.nodes()).find(({ connected, id }) => connected && id !== old),
    );
    expect(now.replaces?.map(({ id }) => id)).toEqual([old]);
    await rig.until(({ node, problems }) => node.id === now.id && problems.length === 0);
  });

  test("is done at once where there is no coordinator", async () => {
    await using rig = new Rig({});
    rig.start();
    const { node } = await rig.until(() => true);
    expect(rig.gpunode("enroll", "--rotate").status).toBe(0);
    expect(rig.status().node.id).not.toBe(node.id);
    expect(JSON.parse(rig.gpunode("usage", "--json").stdout).node.replaces).toMatchObject([{ nodeId: node.id }]);
  });

  test("without --rotate there is nothing to do yet", async () => {
    expect((await gpunode(["enroll"])).code).toBe(2);
  });
});
