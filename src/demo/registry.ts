import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Blob, Image, ImageIndex } from "./image.ts";

/** Throttled layers are written in slices of this long, so that progress is smooth and a stall starts on time. */
const SLICE_MS = 50;

/**
 * What goes wrong with an image, or with all of them. Sizes count within one answer. Manifests and configurations
 * are small and stay whole, unless `status` is set: a fault strikes where a real one does, in a layer.
 */
export interface RegistryFaults {
  /** Speed of each layer's download. */
  readonly bytesPerSecond?: number;
  /** After so many bytes of a layer nothing more comes, on a connection that stays open. */
  readonly stallAfterBytes?: number;
  /** After so many bytes of a layer the connection is reset. */
  readonly resetAfterBytes?: number;
  /** Every request for the image is answered with this status, such as 500 or 429. */
  readonly status?: number;
  /** The fault strikes so often and is then gone; default: always. A client that tries again gets on. */
  readonly times?: number;
}

export interface RegistryOptions {
  /** Refuse whoever does not send these (HTTP Basic). */
  readonly auth?: { readonly username: string; readonly password: string };
  /** For images that name no faults of their own. */
  readonly faults?: RegistryFaults;
  /** Default: one the system picks. */
  readonly port?: number;
}

/** A read-only image registry on loopback, in this process. */
export interface Registry extends AsyncDisposable {
  /** `127.0.0.1:PORT`: engines take a registry on 127.0.0.0/8 without TLS. */
  readonly address: string;
  /** Serves an image under `name` (`demo/hello:1`; tag `latest` where none is named). Returns the reference to pull. */
  add(name: string, image: Image | ImageIndex, faults?: RegistryFaults): string;
  /** Sets or, without `faults`, ends what goes wrong with an image from the next request on. */
  setFaults(name: string, faults?: RegistryFaults): void;
  /** Requests so far, oldest first: method, path, status. */
  readonly requests: readonly { readonly method: string; readonly path: string; readonly status: number }[];
}

interface Repository {
  readonly tags: Map<string, Blob>;
  readonly manifests: Map<string, Blob>;
  readonly blobs: Map<string, Blob>;
  readonly layers: Set<string>;
  faults: RegistryFaults | undefined;
  struck: number;
}

/** Starts the registry. Its end closes every connection, also those that a fault holds open. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const repositories = new Map<string, Repository>();
  const requests: { method: string; path: string; status: number }[] = [];
  const closing = new AbortController();
  const running = new Set<Promise<void>>();

  const server = createServer((request, response) => {
    const answered: Promise<void> = answer(request, response, { repositories, options, closing: closing.signal })
      .catch(() => {
        response.destroy();
      })
      .finally(() => running.delete(answered));
    running.add(answered);
    response.once("close", () => {
      requests.push({ method: request.method ?? "", path: request.url ?? "", status: response.statusCode });
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, "127.0.0.1", resolve);
  });
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;

  return {
    address,
    requests,
    add(name, image, faults) {
      const { path, tag } = splitName(name);
      const repository = repositories.get(path) ?? emptyRepository();
      repositories.set(path, repository);
      hold(repository, tag, image);
      repository.faults = faults ?? options.faults;
      repository.struck = 0;
      return `${address}/${path}:${tag}`;
    },
    setFaults(name, faults) {
      const repository = repositories.get(splitName(name).path);
      if (repository === undefined) throw new Error(`The registry has no image ${name}.`);
      repository.faults = faults;
      repository.struck = 0;
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await Promise.all([closed, ...running]);
    },
  };
}

interface Context {
  readonly repositories: ReadonlyMap<string, Repository>;
  readonly options: RegistryOptions;
  readonly closing: AbortSignal;
}

async function answer(request: IncomingMessage, response: ServerResponse, context: Context): Promise<void> {
  response.setHeader("Docker-Distribution-Api-Version", "registry/2.0");
  if (!authorized(request, context.options.auth)) {
    response.setHeader("WWW-Authenticate", 'Basic realm="gpunode"');
    return refuse(response, 401, "UNAUTHORIZED", "authentication required");
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return refuse(response, 405, "UNSUPPORTED", "this registry is read-only");
  }
  const path = new URL(request.url ?? "/", "http://registry").pathname;
  if (path === "/v2/" || path === "/v2") {
    response.writeHead(200, { "Content-Type": "application/json" }).end("{}");
    return;
  }
  const [, name = "", kind = "", reference = ""] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path) ?? [];
  const repository = context.repositories.get(name);
  if (repository === undefined) return refuse(response, 404, "NAME_UNKNOWN", `repository ${name} is not known`);

  const faults = repository.faults;
  if (faults?.status !== undefined && strikes(repository)) {
    return refuse(response, faults.status, "UNKNOWN", "the registry was told to fail");
  }
  const held = kind === "manifests" ? repository.manifests : repository.blobs;
  const blob = kind === "manifests" ? (repository.tags.get(reference) ?? held.get(reference)) : held.get(reference);
  if (blob === undefined) {
    const code = kind === "manifests" ? "MANIFEST_UNKNOWN" : "BLOB_UNKNOWN";
    return refuse(response, 404, code, `${name} has no ${reference}`);
  }
  await send(request, response, {
    blob,
    repository,
    faulty: repository.layers.has(blob.digest),
    closing: context.closing,
  });
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  what: { blob: Blob; repository: Repository; faulty: boolean; closing: AbortSignal },
): Promise<void> {
  const { blob, repository } = what;
  const total = blob.bytes.length;
  // Engines go on where a broken download ended.
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (from > 0 && from < total) response.setHeader("Content-Range", `bytes ${from}-${total - 1}/${total}`);
  const body = from < total ? blob.bytes.subarray(from) : blob.bytes;
  response.writeHead(body.length < total ? 206 : 200, {
    "Content-Type": blob.mediaType,
    "Content-Length": body.length,
    "Docker-Content-Digest": blob.digest,
    "Accept-Ranges": "bytes",
  });
  const faults = what.faulty && request.method === "GET" ? repository.faults : undefined;
  const trouble = faults !== undefined && breaksOff(faults) && strikes(repository);
  if (faults === undefined || (!trouble && faults.bytesPerSecond === undefined)) {
    response.end(request.method === "HEAD" ? undefined : body);
    return;
  }
  const { stallAfterBytes, resetAfterBytes, ...pace } = faults;
  await sendBadly(response, body, trouble ? faults : pace, what.closing);
}

async function sendBadly(
  response: ServerResponse,
  body: Uint8Array,
  faults: RegistryFaults,
  closing: AbortSignal,
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const signal = AbortSignal.any([gone.signal, closing]);
  const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  const cut = Math.min(faults.stallAfterBytes ?? Infinity, faults.resetAfterBytes ?? Infinity, body.length);
  const slice = faults.bytesPerSecond === undefined ? cut : Math.max(1, (faults.bytesPerSecond * SLICE_MS) / 1000);
  for (let sent = 0; sent < cut && !signal.aborted; ) {
    const end = Math.min(cut, Math.ceil(sent + slice));
    const written = new Promise<void>((resolve) => response.write(body.subarray(sent, end), () => resolve()));
    await Promise.race([written, ended]);
    sent = end;
    if (faults.bytesPerSecond !== undefined) await sleep(SLICE_MS, undefined, { signal }).catch(() => undefined);
  }
  if (signal.aborted) return;
  if (cut === body.length) response.end();
  else if (cut === faults.resetAfterBytes) response.socket?.resetAndDestroy();
  else await ended;
}

/** True for faults that keep a layer from ever being whole. */
function breaksOff(faults: RegistryFaults): boolean {
  return faults.stallAfterBytes !== undefined || faults.resetAfterBytes !== undefined;
}

/** True, and counted, while the image's fault has not yet struck as often as it shall. */
function strikes(repository: Repository): boolean {
  if (repository.struck >= (repository.faults?.times ?? Infinity)) return false;
  repository.struck++;
  return true;
}

function authorized(request: IncomingMessage, auth: RegistryOptions["auth"]): boolean {
  if (auth === undefined) return true;
  return (
    request.headers.authorization === `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`
  );
}

function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response
    .writeHead(status, { "Content-Type": "application/json" })
    .end(JSON.stringify({ errors: [{ code, message }] }));
}

function emptyRepository(): Repository {
  return { tags: new Map(), manifests: new Map(), blobs: new Map(), layers: new Set(), faults: undefined, struck: 0 };
}

function hold(repository: Repository, tag: string, image: Image | ImageIndex): void {
  repository.tags.set(tag, image.manifest);
  repository.manifests.set(image.manifest.digest, image.manifest);
  for (const { manifest, config, layers } of "images" in image ? image.images : [image]) {
    repository.manifests.set(manifest.digest, manifest);
    for (const blob of [config, ...layers]) repository.blobs.set(blob.digest, blob);
    for (const layer of layers) repository.layers.add(layer.digest);
  }
}

function splitName(name: string): { path: string; tag: string } {
  const [path = "", tag = "latest"] = name.split(":");
  return { path, tag };
}
