import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type Blob, buildImage, buildIndex } from "../../src/demo/image.ts";

const root = [{ path: "/bin/sh", content: "#!", mode: 0o755 }];
const json = (blob: Blob) => JSON.parse(Buffer.from(blob.bytes).toString("utf8"));
const sha256 = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

describe("buildImage", () => {
  it("describes each part by the digest and the size of its bytes", async () => {
    const image = await buildImage({ root, files: [{ path: "/etc/motd", content: "hello" }], paddingBytes: 1_000 });
    const manifest = json(image.manifest);
    expect(manifest.layers).toHaveLength(3);
    for (const [blob, said] of [
      [image.config, manifest.config],
      ...image.layers.map((layer, index) => [layer, manifest.layers[index]] as const),
    ] as const) {
      expect(said).toEqual({ mediaType: blob.mediaType, size: blob.bytes.length, digest: sha256(blob.bytes) });
    }
    const diffIds = image.layers.map((layer) => sha256(gunzipSync(layer.bytes)));
    expect(json(image.config).rootfs.diff_ids).toEqual(diffIds);
  });

  it("says in its configuration what was asked for", async () => {
    const image = await buildImage({
      root,
      env: { NVIDIA_REQUIRE_CUDA: "cuda>=99.0" },
      architecture: "arm64",
      cmd: ["serve"],
      entrypoint: ["/bin/sh"],
      user: "nobody",
      labels: { a: "b" },
      exposedPorts: [8000],
    });
    expect(json(image.config)).toMatchObject({
      architecture: "arm64",
      config: {
        Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "NVIDIA_REQUIRE_CUDA=cuda>=99.0"],
        Cmd: ["serve"],
        Entrypoint: ["/bin/sh"],
        User: "nobody",
        Labels: { a: "b" },
        ExposedPorts: { "8000/tcp": {} },
      },
    });
  });

  it("gives the same content the same digest, and padding a new one each time", async () => {
    const [first, second] = [await buildImage({ root }), await buildImage({ root })];
    expect(second.manifest.digest).toBe(first.manifest.digest);
    const padded = [await buildImage({ root, paddingBytes: 10 }), await buildImage({ root, paddingBytes: 10 })];
    expect(padded[0]?.manifest.digest).not.toBe(padded[1]?.manifest.digest);
  });

  it("puts images of several architectures under one index", async () => {
    const image = await buildImage({ root, architecture: "arm64", format: "oci" });
    expect(json(buildIndex([image], "oci").manifest).manifests).toEqual([
      expect.objectContaining({ digest: image.manifest.digest, platform: { os: "linux", architecture: "arm64" } }),
    ]);
  });
});
