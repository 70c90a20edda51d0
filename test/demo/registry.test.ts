import { describe, expect, it } from "vitest";
import { buildImage } from "../../src/demo/image.ts";
import { startRegistry } from "../../src/demo/registry.ts";

const image = await buildImage({ root: [{ path: "/a", content: "a" }], paddingBytes: 200_000 });
const padding = image.layers[1];
if (padding === undefined) throw new Error("no padding layer");

describe("the demo registry", () => {
  it("serves a manifest by tag and by digest, and blobs whole or from an offset", async () => {
    await using registry = await startRegistry();
    expect(registry.add("demo/hello", image)).toBe(`${registry.address}/demo/hello:latest`);
    const base = `http://${registry.address}/v2/demo/hello`;
    for (const reference of ["latest", image.manifest.digest]) {
      const response = await fetch(`${base}/manifests/${reference}`);
      expect(response.headers.get("docker-content-digest")).toBe(image.manifest.digest);
      expect(Buffer.from(await response.arrayBuffer())).toEqual(Buffer.from(image.manifest.bytes));
    }
    const rest = await fetch(`${base}/blobs/${padding.digest}`, { headers: { Range: "bytes=199000-" } });
    expect(rest.status).toBe(206);
    expect(Buffer.from(await rest.arrayBuffer())).toEqual(Buffer.from(padding.bytes.subarray(199_000)));
    const head = await fetch(`${base}/blobs/${padding.digest}`, { method: "HEAD" });
    expect(head.headers.get("content-length")).toBe(String(padding.bytes.length));
  });

  it("answers 404 for what it does not hold and 401 for who may not ask", async () => {
    await using registry = await startRegistry({ auth: { username: "u", password: "p" } });
    registry.add("demo/hello:1", image);
    const status = async (path: string, headers = {}) =>
      (await fetch(`http://${registry.address}${path}`, { headers })).status;
    const authorization = { Authorization: `Basic ${Buffer.from("u:p").toString("base64")}` };
    expect(await status("/v2/")).toBe(401);
    expect(await status("/v2/", authorization)).toBe(200);
    expect(await status("/v2/demo/hello/manifests/2", authorization)).toBe(404);
    expect(await status("/v2/demo/other/manifests/1", authorization)).toBe(404);
    expect(registry.requests.map((request) => request.status)).toEqual([401, 200, 404, 404]);
  });

  it("throttles a layer", async () => {
    await using registry = await startRegistry();
    registry.add("slow", image, { bytesPerSecond: 400_000 });
    const start = performance.now();
    const response = await fetch(`http://${registry.address}/v2/slow/blobs/${padding.digest}`);
    expect((await response.arrayBuffer()).byteLength).toBe(padding.bytes.length);
    expect(performance.now() - start).toBeGreaterThan(400);
  });

  it("stalls a layer on an open connection, and still ends at once", async () => {
    const registry = await startRegistry();
    registry.add("stalled", image, { stallAfterBytes: 1_000 });
    const response = await fetch(`http://${registry.address}/v2/stalled/blobs/${padding.digest}`);
    const reader = response.body!.getReader();
    let received = 0;
    while (received < 1_000) received += (await reader.read()).value?.length ?? 0;
    const next = reader.read().catch((error: unknown) => error);
    const waited = new Promise((resolve) => setTimeout(resolve, 200, "nothing came"));
    expect(received).toBe(1_000);
    expect(await Promise.race([next, waited])).toBe("nothing came");
    await registry[Symbol.asyncDispose]();
    expect(await next).toBeInstanceOf(Error);
    await expect(fetch(`http://${registry.address}/v2/`)).rejects.toThrow();
  });

  it("resets a layer as often as it was told to", async () => {
    await using registry = await startRegistry();
    registry.add("broken", image, { resetAfterBytes: 1_000, times: 1 });
    const get = async () => (await fetch(`http://${registry.address}/v2/broken/blobs/${padding.digest}`)).arrayBuffer();
    await expect(get()).rejects.toThrow();
    expect((await get()).byteLength).toBe(padding.bytes.length);
  });

  it("fails with a status until the fault is ended", async () => {
    await using registry = await startRegistry({ faults: { status: 503 } });
    registry.add("down", image);
    const status = async () => (await fetch(`http://${registry.address}/v2/down/manifests/latest`)).status;
    expect(await status()).toBe(503);
    registry.setFaults("down");
    expect(await status()).toBe(200);
  });
});
