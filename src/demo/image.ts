import { createHash, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { type LayerEntry, rootFileSystem, tarOf } from "./root-layer.ts";

const compress = promisify(gzip);

/** Docker's image format and OCI's differ in their media types alone (image manifest v2.2; OCI image-spec 1.0). */
const MEDIA_TYPES = {
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
  },
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
    index: "application/vnd.oci.image.index.v1+json",
  },
} as const;

/** Content with its address: `digest` is `sha256:` and the hash of `bytes`. */
export interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

/** One image, whole: what a registry must hold for an engine to pull it. */
export interface Image {
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  readonly architecture: string;
}

/** Several images under one name, one for each architecture. */
export interface ImageIndex {
  readonly manifest: Blob;
  readonly images: readonly Image[];
}

export interface ImageOptions {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: string;
  readonly workingDir?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly exposedPorts?: readonly number[];
  /** As Go names it: `amd64`, `arm64`. Default: this machine's. It is what the image says; its programs stay the same. */
  readonly architecture?: string;
  /** Files beside the root file system, by absolute path; a string is text of mode 0644. */
  readonly files?: readonly LayerEntry[];
  /** Size of a further layer of random bytes, new for each image, so that a pull has something to carry. */
  readonly paddingBytes?: number;
  /** The root file system; default: made of this machine's busybox or core programs (`rootFileSystem`). */
  readonly root?: readonly LayerEntry[];
  readonly format?: keyof typeof MEDIA_TYPES;
}

/** Builds an image in memory: a shell's root file system, what `options` adds, and a configuration that says so. */
export async function buildImage(options: ImageOptions = {}): Promise<Image> {
  const types = MEDIA_TYPES[options.format ?? "docker"];
  const architecture = options.architecture ?? machineArchitecture();
  const layers = [await layerOf(options.root ?? (await rootFileSystem()), types.layer)];
  if (options.files !== undefined && options.files.length > 0) layers.push(await layerOf(options.files, types.layer));
  if (options.paddingBytes !== undefined) {
    const padding = { path: "/padding", content: randomBytes(options.paddingBytes) };
    layers.push(await layerOf([padding], types.layer, { level: 0 }));
  }
  const config = jsonBlob(types.config, {
    architecture,
    os: "linux",
    config: {
      Env: Object.entries({ PATH: "/usr/local/bin:/usr/bin:/bin", ...options.env }).map(
        ([key, value]) => `${key}=${value}`,
      ),
      ...(options.entrypoint && { Entrypoint: options.entrypoint }),
      Cmd: options.cmd ?? ["/bin/sh"],
      ...(options.user && { User: options.user }),
      ...(options.workingDir && { WorkingDir: options.workingDir }),
      ...(options.labels && { Labels: options.labels }),
      ...(options.exposedPorts && {
        ExposedPorts: Object.fromEntries(options.exposedPorts.map((port) => [`${port}/tcp`, {}])),
      }),
    },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map(() => ({ created_by: "gpunode demo" })),
  });
  const blobs = layers.map((layer) => layer.blob);
  const manifest = jsonBlob(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(config),
    layers: blobs.map(descriptor),
  });
  return { manifest, config, layers: blobs, architecture };
}

/** Puts images of several architectures under one name, as an engine finds them on a public registry. */
export function buildIndex(images: readonly Image[], format: keyof typeof MEDIA_TYPES = "docker"): ImageIndex {
  const { index } = MEDIA_TYPES[format];
  const manifests = images.map((image) => ({
    ...descriptor(image.manifest),
    platform: { os: "linux", architecture: image.architecture },
  }));
  return { manifest: jsonBlob(index, { schemaVersion: 2, mediaType: index, manifests }), images };
}

async function layerOf(
  entries: readonly LayerEntry[],
  mediaType: string,
  options: { level?: number } = {},
): Promise<{ blob: Blob; diffId: string }> {
  const tar = await tarOf(entries);
  return { blob: blobOf(mediaType, await compress(tar, options)), diffId: digestOf(tar) };
}

function jsonBlob(mediaType: string, value: unknown): Blob {
  return blobOf(mediaType, Buffer.from(JSON.stringify(value)));
}

function blobOf(mediaType: string, bytes: Uint8Array): Blob {
  return { mediaType, digest: digestOf(bytes), bytes };
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function descriptor(blob: Blob): { mediaType: string; size: number; digest: string } {
  return { mediaType: blob.mediaType, size: blob.bytes.length, digest: blob.digest };
}

/** This machine's architecture by the name container images use. */
function machineArchitecture(): string {
  return process.arch === "x64" ? "amd64" : process.arch;
}
