import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { connect, isIP, type Socket } from "node:net";
import { type DetailedPeerCertificate, type TLSSocket, connect as tlsConnect } from "node:tls";
import type { Config } from "../../config/config.ts";
import { type CoordinatorAddress, coordinatorAddress, dial, proxyUrl } from "../../link/dial.ts";
import { dialError } from "../../link/dial-errors.ts";
import { connectThroughProxy } from "../../link/proxy.ts";
import type { CertificateFacts, CoordinatorFacts } from "../facts.ts";
import type { Reader } from "./reader.ts";

/** For each step. */
const STEP_MS = 4_000;
/** A chain has three or four; a loop of issuers would have no end. */
const CHAIN_MOST = 10;

export const coordinator: Reader<"coordinator"> = {
  after: ["config"],
  limitMs: 3 * STEP_MS + 1_000,
  async read({ now }, had, signal): Promise<CoordinatorFacts | { missing: string }> {
    const options = had("config")?.config.coordinator;
    const { url } = options ?? {};
    if (options === undefined || url === undefined) return { missing: "no coordinator is configured" };
    const address = coordinatorAddress(url, { insecure: options.insecure });
    const proxy = options.proxy === undefined ? undefined : proxyUrl(options.proxy.reveal());
    const facts: CoordinatorFacts = { url, ...(proxy !== undefined && { proxy: proxy.host }) };
    // The proxy looks the name up, not this machine.
    if (proxy === undefined) {
      facts.name = await step(signal, () => addressesOf(address));
      if ("problem" in facts.name) return facts;
    }
    const begun = performance.now();
    const way = await step(signal, async (limit) => ({ socket: await reach(address, proxy, limit) }));
    if ("problem" in way) return { ...facts, connection: way };
    facts.connection = { tookMs: performance.now() - begun };
    const looked = await step(signal, (limit) => lookInside(way.socket, address, options, now, limit));
    way.socket.destroy();
    if ("problem" in looked)
      return { ...facts, ...(address.url.protocol === "wss:" && { certificate: { chain: [], ...looked } }) };
    Object.assign(facts, looked);
    if (facts.certificate?.problem !== undefined) return facts;
    facts.protocol = await step(signal, (limit) => speak(address, options, limit));
    return facts;
  },
};

/** What the step came to, or why it failed in a sentence for the owner. Rejects only where the whole is given up. */
async function step<T extends object>(
  signal: AbortSignal,
  take: (limit: AbortSignal) => Promise<T>,
): Promise<T | { problem: string }> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(STEP_MS)]);
  const { promise: late, reject } = Promise.withResolvers<never>();
  const end = () => reject(limit.reason);
  limit.addEventListener("abort", end, { once: true });
  try {
    return await Promise.race([take(limit), late]);
  } catch (error) {
    signal.throwIfAborted();
    return { problem: limit.aborted ? `no answer within ${STEP_MS / 1000} s` : dialError(error).message };
  } finally {
    limit.removeEventListener("abort", end);
  }
}

async function addressesOf({ url }: CoordinatorAddress): Promise<{ addresses: string[] }> {
  const host = bare(url.hostname);
  if (isIP(host) !== 0) return { addresses: [host] };
  return { addresses: (await lookup(host, { all: true })).map(({ address }) => address) };
}

async function reach({ url }: CoordinatorAddress, proxy: URL | undefined, signal: AbortSignal): Promise<Socket> {
  const port = Number(url.port || (url.protocol === "wss:" ? 443 : 80));
  if (proxy !== undefined) return await connectThroughProxy(proxy, `${url.hostname}:${port}`, signal);
  const socket = connect({ host: bare(url.hostname), port, signal });
  await once(socket, "connect", { signal });
  // Whatever comes of it later is told by whoever reads it.
  socket.on("error", () => undefined);
  return socket;
}

/** The certificate, and the time of the coordinator's clock. A certificate that is no good is looked at, and nothing is sent. */
async function lookInside(
  way: Socket,
  address: CoordinatorAddress,
  options: Config["coordinator"],
  now: () => number,
  signal: AbortSignal,
): Promise<Pick<CoordinatorFacts, "certificate" | "clockAheadMs">> {
  if (address.url.protocol !== "wss:") return await clockOf(way, address, now, signal);
  const [ca, cert, key] = await Promise.all(
    [options.caFile, options.certFile, options.keyFile].map(async (path) =>
      path === undefined ? undefined : await readFile(path, "utf8"),
    ),
  );
  const host = bare(address.url.hostname);
  const secure = tlsConnect({
    socket: way,
    host,
    servername: isIP(host) === 0 ? host : "",
    rejectUnauthorized: false,
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  });
  try {
    await once(secure, "secureConnect", { signal });
    secure.on("error", () => undefined);
    const certificate = certificateOf(secure);
    if (certificate.problem !== undefined) return { certificate };
    return { certificate, ...(await clockOf(secure, address, now, signal)) };
  } finally {
    secure.destroy();
  }
}

function certificateOf(secure: TLSSocket): CertificateFacts {
  const chain: { subject: string; validUntilMs: number }[] = [];
  let at: DetailedPeerCertificate | undefined = secure.getPeerCertificate(true);
  while (at?.valid_to !== undefined && chain.length < CHAIN_MOST) {
    chain.push({ subject: nameOf(at), validUntilMs: Date.parse(at.valid_to) });
    // The last one is its own issuer.
    at = at.issuerCertificate === at ? undefined : at.issuerCertificate;
  }
  if (secure.authorized) return { chain };
  return { chain, problem: dialError(secure.authorizationError).message };
}

function nameOf({ subject }: DetailedPeerCertificate): string {
  const names = [subject?.CN, subject?.O].flat();
  return names.find((name) => name !== undefined && name !== "") ?? "a certificate without a name";
}

/** By the `Date` of whatever it answers: seconds, so half of one is added, and the way there and back shared. */
async function clockOf(
  socket: Socket,
  { url, host }: CoordinatorAddress,
  now: () => number,
  signal: AbortSignal,
): Promise<{ clockAheadMs?: number }> {
  const asked = request({
    method: "HEAD",
    path: url.pathname,
    headers: { Host: host },
    signal,
    createConnection: () => socket,
  });
  const sentAtMs = now();
  asked.end();
  const [response] = (await once(asked, "response", { signal })) as [{ headers: { date?: string }; resume(): void }];
  const halfWayMs = (sentAtMs + now()) / 2;
  asked.on("error", () => undefined);
  response.resume();
  const dateMs = Date.parse(response.headers.date ?? "");
  return Number.isNaN(dateMs) ? {} : { clockAheadMs: dateMs + 500 - halfWayMs };
}

/** As far as the WebSocket: the coordinator sees somebody who hangs up before saying who it is. */
async function speak(
  address: CoordinatorAddress,
  { caFile, certFile, keyFile, proxy }: Config["coordinator"],
  signal: AbortSignal,
): Promise<{ works: true }> {
  const { socket } = await dial(
    {
      address,
      timeoutMs: STEP_MS,
      ...(caFile !== undefined && { caFile }),
      ...(certFile !== undefined && { certFile }),
      ...(keyFile !== undefined && { keyFile }),
      ...(proxy !== undefined && { proxy: proxy.reveal() }),
    },
    signal,
  );
  socket.terminate();
  return { works: true };
}

/** An IPv6 address stands in brackets in a URL. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, "");
}
