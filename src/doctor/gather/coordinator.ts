import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { request } from "node:http";
import { connect, isIP, type Socket } from "node:net";
import { type DetailedPeerCertificate, type TLSSocket, connect as tlsConnect } from "node:tls";
import type { Config } from "../../config/config.ts";
import { type CoordinatorAddress, coordinatorAddress, credentials, dial, proxyUrl, whereTo } from "../../link/dial.ts";
import { dialError } from "../../link/dial-errors.ts";
import { connectThroughProxy } from "../../link/proxy.ts";
import type { CertificateFacts, CoordinatorFacts } from "../facts.ts";
import type { Reader } from "./reader.ts";

/** For each step. */
const STEP_MS = 3_000;
/** A chain has three or four; a loop of issuers would have no end. */
const CHAIN_MOST = 10;

export const coordinator: Reader<"coordinator"> = {
  after: ["config"],
  limitMs: 5 * STEP_MS,
  async read({ now }, had, signal): Promise<CoordinatorFacts | { missing: string }> {
    if (had("config")?.isClosed === true) return { missing: "the configuration may not be read: run it with sudo" };
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
    try {
      const seen = await lookThrough(way.socket, address, options, { now, signal });
      Object.assign(facts, seen);
      if (seen.certificate?.problem !== undefined) return facts;
    } finally {
      way.socket.destroy();
    }
    facts.protocol = await step(signal, (limit) => speak(address, options, limit));
    return facts;
  },
};

/** The certificate, where there is one, and the time of the coordinator's clock, which it need not tell. */
async function lookThrough(
  way: Socket,
  address: CoordinatorAddress,
  options: Config["coordinator"],
  { now, signal }: { now(): number; signal: AbortSignal },
): Promise<Pick<CoordinatorFacts, "certificate" | "clockAheadMs">> {
  const clockBy = async (socket: Socket) => {
    const told = await step(signal, (limit) => clockOf(socket, address, now, limit));
    return "problem" in told ? {} : told;
  };
  if (address.url.protocol !== "wss:") return await clockBy(way);
  const secured = await step(signal, async (limit) => ({ socket: await secure(way, address, options, limit) }));
  if ("problem" in secured) return { certificate: { chain: [], problem: secured.problem } };
  try {
    const certificate = certificateOf(secured.socket);
    // To one whose certificate is no good nothing is sent.
    return { certificate, ...(certificate.problem === undefined && (await clockBy(secured.socket))) };
  } finally {
    secured.socket.destroy();
  }
}

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

async function addressesOf(address: CoordinatorAddress): Promise<{ addresses: string[] }> {
  const { host } = whereTo(address);
  if (isIP(host) !== 0) return { addresses: [host] };
  return { addresses: (await lookup(host, { all: true })).map((found) => found.address) };
}

async function reach(address: CoordinatorAddress, proxy: URL | undefined, signal: AbortSignal): Promise<Socket> {
  const { host, port, target } = whereTo(address);
  if (proxy !== undefined) return await connectThroughProxy(proxy, target, signal);
  // The signal is for getting there, and the socket lives on.
  const socket = connect({ host, port });
  try {
    await once(socket, "connect", { signal });
  } catch (error) {
    socket.destroy();
    throw error;
  }
  // Whatever comes of it later is told by whoever reads it.
  socket.on("error", () => undefined);
  return socket;
}

/** TLS over that socket, whatever the certificate: it is to be looked at. */
async function secure(
  way: Socket,
  address: CoordinatorAddress,
  options: Config["coordinator"],
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { host, servername } = whereTo(address);
  const tls = await credentials(options, signal);
  const socket = tlsConnect({ ...tls, socket: way, host, servername, rejectUnauthorized: false });
  try {
    await once(socket, "secureConnect", { signal });
  } catch (error) {
    socket.destroy();
    throw error;
  }
  socket.on("error", () => undefined);
  return socket;
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
