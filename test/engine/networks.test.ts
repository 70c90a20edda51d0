import { afterEach, describe, expect, it } from "vitest";
import { docker, haveEngine } from "../support/engine.ts";
import { openEngine, pullSmallImage, refusal, removeAll, specFor } from "./harness.ts";

const spec = (engine: { nodeId: string }, name: string) => ({
  name: `${engine.nodeId}-${name}`,
  bridge: `gpt-${engine.nodeId.slice(-7)}${name}`.slice(0, 15),
  labels: { "org.gpunode.node": engine.nodeId },
  ipv6: false,
});

describe.runIf(haveEngine)("networks", { timeout: 60_000 }, () => {
  let engine: ReturnType<typeof openEngine>;
  afterEach(async () => {
    await removeAll(engine);
    for (const { id } of await engine.networks.list()) await engine.networks.remove(id);
    expect(await engine.networks.list()).toEqual([]);
    await engine[Symbol.asyncDispose]();
  });

  it("are made once, found again, and removed; one that is gone is no error", async () => {
    engine = openEngine();
    const { networks } = engine;
    const id = await networks.create(spec(engine, "a"));
    expect(await networks.create(spec(engine, "a"))).toBe(id);
    expect(await networks.list()).toEqual([{ id, name: `${engine.nodeId}-a` }]);
    const { Options, Labels } = await docker().getNetwork(id).inspect();
    expect(Options).toMatchObject({
      "com.docker.network.bridge.name": spec(engine, "a").bridge,
      "com.docker.network.bridge.enable_icc": "false",
    });
    expect(Labels).toEqual({ "org.gpunode.node": engine.nodeId });
    expect((await networks.inspect(id))?.gateways).toHaveLength(1);
    // The same name on another bridge would be outside of the rules.
    expect(await refusal(networks.create({ ...spec(engine, "a"), bridge: "gpt-other" }))).toMatchObject({
      code: "internal",
      message: expect.stringContaining("instead of gpt-other"),
    });
    expect(await networks.remove(id)).toBe(true);
    expect(await networks.remove(id)).toBe(true);
    expect(await networks.inspect(id)).toBeUndefined();
  });

  it("stay while a container is on them, and tell its address", async () => {
    engine = openEngine();
    const { networks } = engine;
    const network = await networks.create(spec(engine, "a"));
    const image = await pullSmallImage(engine);
    const id = await engine.create(specFor(engine, image, "sleep 60", { network }));
    await engine.start(id);
    expect((await networks.inspect(network))?.addresses[id]).toEqual([expect.stringMatching(/^\d+\.\d+\.\d+\.\d+$/)]);
    expect(await networks.remove(network)).toBe(false);
    await engine.remove(id);
    expect(await networks.remove(network)).toBe(true);
  });

  it("carry packets no larger than they are told", async () => {
    engine = openEngine();
    const network = await engine.networks.create({ ...spec(engine, "m"), mtu: 1380 });
    const image = await pullSmallImage(engine);
    const id = await engine.create(specFor(engine, image, "cat /sys/class/net/eth0/mtu", { network }));
    await engine.start(id);
    await docker().getContainer(id).wait();
    const output = await docker().getContainer(id).logs({ stdout: true });
    expect(output.toString()).toContain("1380");
  });

  it("of others are neither seen nor removed", async () => {
    engine = openEngine();
    await using other = openEngine();
    const id = await other.networks.create(spec(other, "a"));
    expect(await engine.networks.inspect(id)).toBeUndefined();
    expect(await engine.networks.list()).toEqual([]);
    expect(await engine.networks.remove(id)).toBe(true);
    expect(await other.networks.inspect(id)).toMatchObject({ id });
    // A name that is taken by somebody else's is free for us; a bridge is not.
    const taken = { ...spec(engine, "b"), bridge: spec(other, "a").bridge };
    expect(await refusal(engine.networks.create(taken))).toMatchObject({ code: "internal" });
    await other.networks.remove(id);
  });
});
