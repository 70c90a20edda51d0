import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildIndex } from "../../src/demo/image.ts";
import { type Registry, startRegistry } from "../../src/demo/registry.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { openDescriptors, openEngine, pullOptions, refusal, settledDescriptors, until } from "./harness.ts";

const MIB = 1024 * 1024;

describe.runIf(haveEngine)("pulls", () => {
  let engine: ReturnType<typeof openEngine>;
  let registry: Registry;
  const arch = process.arch === "x64" ? "amd64" : process.arch;
  const otherArch = arch === "amd64" ? "arm64" : "amd64";

  beforeAll(async () => {
    engine = openEngine();
    registry = await startRegistry();
  });
  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it("bring an image with progress, and say what it is", async () => {
    const built = await smallImage({ paddingBytes: 4 * MIB, env: { NVIDIA_REQUIRE_CUDA: "cuda>=12.4" }, user: "app" });
    const reference = registry.add("pull/progress:1", built, { bytesPerSecond: 4 * MIB });
    const told: [number, number][] = [];
    const pulled = await engine.pull(reference, pullOptions({ onProgress: (now, all) => void told.push([now, all]) }));
    expect(pulled).toMatchObject({ digest: built.manifest.digest, architecture: arch, os: "linux", user: "app" });
    expect(pulled.env).toContain("NVIDIA_REQUIRE_CUDA=cuda>=12.4");
    expect(pulled.sizeBytes).toBeGreaterThan(4 * MIB);
    const numbers = told.map(([now]) => now);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    const [last, total] = told.at(-1) ?? [0, 0];
    expect(last).toBeGreaterThan(4 * MIB);
    expect(total).toBe(last);
    expect(await engine.image(reference)).toEqual(pulled);
    const listed = (await engine.images()).find(({ digest }) => digest === pulled.digest);
    expect(listed).toMatchObject({ tags: [reference] });
  });

  it("by digest ask the registry only where the image is not here; by tag they always ask", async () => {
    const built = await smallImage();
    const tagged = registry.add("pull/again:1", built);
    const exact = `${tagged.replace(/:1$/, "")}@${built.manifest.digest}`;
    const first = await engine.pull(exact, pullOptions());
    expect(first.digest).toBe(built.manifest.digest);
    const asked = () => registry.requests.filter(({ path }) => path.includes("pull/again")).length;
    const before = asked();
    expect(await engine.pull(exact, pullOptions())).toEqual(first);
    expect(asked()).toBe(before);
    await engine.pull(tagged, pullOptions());
    expect(asked()).toBeGreaterThan(before);
    const moved = await smallImage({ env: { VERSION: "2" } });
    registry.add("pull/again:1", moved);
    expect((await engine.pull(tagged, pullOptions())).digest).toBe(moved.manifest.digest);
    // Still there under its digest, and still without a word to the registry.
    expect(await engine.pull(exact, pullOptions())).toEqual(first);
  });

  it("of a tag fail when the registry is gone, although an older image of that tag is here", async () => {
    const short = await startRegistry();
    const built = await smallImage();
    const tagged = short.add("pull/gone:1", built);
    await engine.pull(tagged, pullOptions());
    await short[Symbol.asyncDispose]();
    expect(await refusal(engine.pull(tagged, pullOptions()))).toMatchObject({
      code: "pull_failed",
      reason: "registry_unreachable",
    });
    const exact = `${tagged.replace(/:1$/, "")}@${built.manifest.digest}`;
    expect((await engine.pull(exact, pullOptions())).digest).toBe(built.manifest.digest);
  });

  it("pick this machine's variant, and refuse an image that has none", async () => {
    const [ours, theirs] = [await smallImage(), await smallImage({ architecture: otherArch })];
    const both = registry.add("pull/both:1", buildIndex([theirs, ours]));
    expect(await engine.pull(both, pullOptions())).toMatchObject({ architecture: arch });
    const none = registry.add("pull/none:1", buildIndex([theirs]));
    expect(await refusal(engine.pull(none, pullOptions()))).toMatchObject({
      code: "invalid_spec",
      reason: "wrong_architecture",
    });
    // A plain image says it only in its configuration: that is told, and compared by who asked.
    const plain = registry.add("pull/plain:1", theirs);
    expect(await engine.pull(plain, pullOptions())).toMatchObject({ architecture: otherArch });
  });

  it("from a registry with a login need the right one", async () => {
    const login = { username: "ann", password: "s3cret/+?" };
    await using guarded = await startRegistry({ auth: login });
    const reference = guarded.add("team/private:1", await smallImage({ env: { SECRET: "1" } }));
    const without = await refusal(engine.pull(reference, pullOptions()));
    expect(without).toMatchObject({ code: "pull_failed", reason: "needs_auth" });
    expect(without.message).toContain("registryAuth");
    const wrong = await refusal(
      engine.pull(reference, pullOptions({ auth: new Secret({ ...login, password: "no-not-it" }) })),
    );
    expect(wrong).toMatchObject({ code: "pull_failed", reason: "needs_auth" });
    expect(wrong.message).not.toContain("no-not-it");
    expect(await engine.pull(reference, pullOptions({ auth: new Secret(login) }))).toMatchObject({ os: "linux" });
  });

  it("of what is not there say so, in both kinds of registry", async () => {
    const real = await pushImage("engine-test/there:1", await smallImage());
    for (const reference of [`${registry.address}/no/such:1`, real.replace(":1", ":nosuchtag")]) {
      expect(await refusal(engine.pull(reference, pullOptions()))).toMatchObject({
        code: "pull_failed",
        reason: "no_such_image",
      });
    }
    for (const reference of ["UPPER/Case:1", "a b", "", "../../containers/json?", "x@sha256:12"]) {
      expect(await refusal(engine.pull(reference, pullOptions()))).toMatchObject({ code: "invalid_spec" });
    }
  });

  it("whose layers break off once go on by themselves", async () => {
    const built = await smallImage({ paddingBytes: 2 * MIB });
    const reference = registry.add("pull/hiccup:1", built, { resetAfterBytes: 1_000_000, times: 1 });
    expect((await engine.pull(reference, pullOptions())).digest).toBe(built.manifest.digest);
  });

  it("that stall are given up after the limit, slow ones that move are not", async () => {
    const noProgressMs = 2_000;
    const stalled = registry.add("pull/stalled:1", await smallImage({ paddingBytes: 2 * MIB }), {
      stallAfterBytes: 500_000,
    });
    const began = performance.now();
    const refused = await refusal(engine.pull(stalled, pullOptions({ noProgressMs })));
    expect(refused).toMatchObject({ code: "pull_failed", reason: "no_progress" });
    expect(performance.now() - began).toBeLessThan(10_000);
    const slow = registry.add("pull/slow:1", await smallImage({ paddingBytes: 1 * MIB }), {
      bytesPerSecond: 250_000,
    });
    const slowBegan = performance.now();
    await engine.pull(slow, pullOptions({ noProgressMs }));
    expect(performance.now() - slowBegan).toBeGreaterThan(noProgressMs * 1.5);
  });

  it("end with their signal, and the engine stops asking the registry", async () => {
    const built = await smallImage({ paddingBytes: 8 * MIB });
    const reference = registry.add("pull/aborted:1", built, { bytesPerSecond: 500_000 });
    const before = await settledDescriptors();
    const stop = new AbortController();
    const pulling = engine.pull(reference, pullOptions({ signal: stop.signal }));
    pulling.catch(() => undefined);
    await sleep(500);
    stop.abort(new Error("not wanted any more"));
    await expect(pulling).rejects.toThrow("not wanted any more");
    // A cancelled download ends its request long before its 16 seconds are over.
    const isOver = () => registry.requests.some(({ path }) => path.endsWith(built.layers.at(-1)?.digest ?? "?"));
    await until(isOver, 8_000);
    await until(() => openDescriptors() <= before);
    expect(await engine.image(reference)).toBeUndefined();
  });

  it("of the same image at once are one, and outlive the one who began it", async () => {
    const built = await smallImage({ paddingBytes: 2 * MIB });
    const reference = registry.add("pull/shared:1", built, { bytesPerSecond: 1_500_000 });
    const stop = new AbortController();
    const first = engine.pull(reference, pullOptions({ signal: stop.signal }));
    first.catch(() => undefined);
    const second = engine.pull(reference, pullOptions());
    await sleep(300);
    stop.abort();
    await expect(first).rejects.toThrow();
    expect((await second).digest).toBe(built.manifest.digest);
    const downloads = registry.requests.filter(({ path }) => path.endsWith(built.layers.at(-1)?.digest ?? "?"));
    expect(downloads).toHaveLength(1);
  });
});
