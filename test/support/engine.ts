import Docker from "dockerode";
import { inject } from "vitest";
import { type Blob, buildImage, type Image, type ImageIndex, type ImageOptions } from "../../src/demo/image.ts";
import { rootFileSystem } from "../../src/demo/root-layer.ts";

const testbed = inject("testbed");

/** For `describe.runIf`: false only where this machine cannot have an engine, which the run has then said in one line. */
export const haveEngine = testbed.engine !== "none" || testbed.broken;

/** True where the engine accepts GPU requests because it is ours; also: where tests may kill it or change all of it. */
export const engineIsPrivate = testbed.engine === "private" || testbed.broken;

/** Path of the engine's unix socket. */
export function engineSocket(): string {
  return present(testbed.socket);
}

/** `127.0.0.1:PORT` of the run's real registry, which any engine pulls from without TLS. */
export function registryAddress(): string {
  return present(testbed.registry);
}

/** A client of the run's engine. */
export function docker(): Docker {
  return new Docker({ socketPath: engineSocket() });
}

/** Builds a small image with busybox in it (`sh`, `sleep`, `env`, `nc`, `httpd` …): see `buildImage`. */
export async function smallImage(options: ImageOptions = {}): Promise<Image> {
  const root = await rootFileSystem(testbed.busybox === undefined ? {} : { busybox: testbed.busybox });
  return buildImage({ root, ...options });
}

/** Ids of the containers, running or not, that carry `label` (`key` or `key=value`). */
export async function containersLeft(label: string): Promise<string[]> {
  const containers = await docker().listContainers({ all: true, filters: { label: [label] } });
  return containers.map((container) => container.Id);
}

/** Pushes an image into the real registry (or the one at `to`) as `name` (`team/hello:1`). Returns the reference to pull. */
export async function pushImage(name: string, image: Image | ImageIndex, to = registryAddress()): Promise<string> {
  const [path = "", tag = "latest"] = name.split(":");
  const repository = `http://${to}/v2/${path}`;
  const parts = "images" in image ? image.images : [image];
  for (const part of parts) {
    for (const blob of [part.config, ...part.layers]) await pushBlob(repository, blob);
    await pushManifest(repository, part.manifest.digest, part.manifest);
  }
  await pushManifest(repository, tag, image.manifest);
  return `${to}/${path}:${tag}`;
}

async function pushBlob(repository: string, blob: Blob): Promise<void> {
  const known = await fetch(`${repository}/blobs/${blob.digest}`, { method: "HEAD" });
  if (known.ok) return;
  const upload = await expectStatus(202, `${repository}/blobs/uploads/`, { method: "POST" });
  const target = new URL(upload.headers.get("location") ?? "", repository);
  target.searchParams.set("digest", blob.digest);
  const headers = { "Content-Type": "application/octet-stream" };
  await expectStatus(201, target, { method: "PUT", headers, body: Buffer.from(blob.bytes) });
}

async function pushManifest(repository: string, reference: string, manifest: Blob): Promise<void> {
  const headers = { "Content-Type": manifest.mediaType };
  const body = Buffer.from(manifest.bytes);
  await expectStatus(201, `${repository}/manifests/${reference}`, { method: "PUT", headers, body });
}

async function expectStatus(status: number, url: string | URL, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  // Read to its end, or the connection stays taken.
  const text = await response.text();
  if (response.status !== status) throw new Error(`${init.method} ${url}: ${response.status} ${text}`);
  return response;
}

function present(value: string | undefined): string {
  if (value === undefined) throw new Error(`This test needs a Docker engine and a registry: ${testbed.reason}`);
  return value;
}
