import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { isIP, type Socket, connect as tcpConnect } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { Challenge } from "../protocol/coordinator-frames.ts";
import { CLOSE, PROTOCOL } from "../protocol/limits.ts";
import { check, parseFrame } from "../protocol/parse.ts";
import { certificateInWords, distrustInWords } from "./certificate-words.ts";
import { credentials, type DialOptions, dial, isLoopback, proxyUrl, whereTo } from "./dial.ts";
import { type DialError, dialError } from "./dial-errors.ts";
import { connectThroughProxy } from "./proxy.ts";
import { endOfClose, printable } from "./session-end.ts";

/** One thing that was looked at on the way to a coordinator. */
export interface Finding {
  about: "name" | "connection" | "certificate" | "coordinator" | "clock";
  /** `bad` ends the way; `doubtful` works, and the owner should know. */
  verdict: "good" | "doubtful" | "bad";
  /** What was found, without a full stop. */
  says: string;
  /** What to do about it. */
  remedy?: string;
  /** The certificate would be good with the right authority. */
  wants?: "ca_file";
}

export interface PreflightOptions extends Omit<DialOptions, "timeoutMs"> {
  /** For each step; milliseconds. */
  timeoutMs?: number;
  /** The wall clock, milliseconds since the epoch. */
  now?: () => number;
}

const STEP_MS = 10_000;
/** Clocks this far apart are told: certificates and the times of events go by them. */
const CLOCKS_APART_MS = 30_000;

/**
 * Goes the way to a coordinator as far as a stranger may: name, connection, certificate, and its first word. What a coordinator learns is
 * that somebody dialled: nothing is introduced, no token shown, so none is used up. Ends after the first finding that is `bad`. Throws only
 * the signal's reason.
 */
export async function* preflight(options: PreflightOptions, signal: AbortSignal): AsyncGenerator<Finding> {
  for (const step of STEPS) {
    for (const finding of await attempt(step, options, signal)) {
      yield finding;
      if (finding.verdict === "bad") return;
    }
  }
}

interface Step {
  about: Finding["about"];
  look(options: PreflightOptions, limit: AbortSignal): Promise<Finding[]>;
}

const STEPS: readonly Step[] = [
  { about: "name", look: name },
  { about: "connection", look: connection },
  { about: "certificate", look: certificate },
  { about: "coordinator", look: coordinator },
];

async function attempt({ about, look }: Step, options: PreflightOptions, signal: AbortSignal): Promise<Finding[]> {
  const { timeoutMs = STEP_MS } = options;
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  try {
    return await look(options, limit);
  } catch (error) {
    signal.throwIfAborted();
    if (!limit.aborted) return [inWords(about, dialError(error), options)];
    const remedy = "is the host up, and does no firewall drop the connection?";
    return [bad(about, `no answer within ${timeoutMs / 1000} s`, remedy)];
  }
}

async function name({ address, proxy }: PreflightOptions): Promise<Finding[]> {
  // What the proxy is asked for it looks up itself.
  const host = proxy === undefined ? whereTo(address).host : proxyUrl(proxy).hostname.replace(/^\[|\]$/g, "");
  if (isIP(host) !== 0) return [];
  const found = await lookup(host, { all: true });
  return [
    good(
      "name",
      `${host} is ${found
        .map((each) => each.address)
        .slice(0, 3)
        .join(", ")}`,
    ),
  ];
}

async function connection(options: PreflightOptions, limit: AbortSignal): Promise<Finding[]> {
  const began = performance.now();
  using way = disposable(await wayTo(options, limit));
  const tookMs = Math.max(1, Math.round(performance.now() - began));
  const { port } = whereTo(options.address);
  const { remoteAddress } = way.socket;
  if (options.proxy !== undefined) {
    return [good("connection", `the proxy ${proxyUrl(options.proxy).host} leads to port ${port} (${tookMs} ms)`)];
  }
  return [good("connection", `${remoteAddress ?? "it"} answers on port ${port} (${tookMs} ms)`)];
}

async function certificate(options: PreflightOptions, limit: AbortSignal): Promise<Finding[]> {
  const { isSecure, host, servername } = whereTo(options.address);
  if (!isSecure) {
    if (isLoopback(options.address.url.hostname)) return [];
    const says = "none: all that is sent, secrets of workloads included, can be read on the way (coordinator.insecure)";
    return [
      {
        about: "certificate",
        verdict: "doubtful",
        says,
        remedy: "use wss:// as soon as the coordinator has a certificate",
      },
    ];
  }
  const tls = await credentials(options, limit);
  const way = await wayTo(options, limit);
  using _way = disposable(way);
  // Not refused by the connection itself, so that the certificate can be shown; nothing is sent on it.
  const socket = tlsConnect({ ...tls, socket: way, servername, host, rejectUnauthorized: false });
  using _socket = disposable(socket);
  await once(socket, "secureConnect", { signal: limit });
  const shown = socket.getPeerX509Certificate();
  const words = shown === undefined ? "it showed no certificate" : certificateInWords(shown);
  if (socket.authorized) return [good("certificate", words)];
  // The type says Error, and it is its code.
  const code = String(socket.authorizationError);
  const { says, remedy, isUnknown } = distrustInWords(code, { host, certificate: shown, ...pick(options) });
  return [{ ...bad("certificate", `${says}: ${words}`, remedy), ...(isUnknown && { wants: "ca_file" }) }];
}

async function coordinator(options: PreflightOptions, limit: AbortSignal): Promise<Finding[]> {
  const { timeoutMs = STEP_MS, now = Date.now } = options;
  const { socket } = await dial({ ...options, timeoutMs }, limit);
  try {
    const closed = once(socket, "close", { signal: limit }).then(([code, reason]) => ({
      code: Number(code),
      reason: String(reason),
    }));
    const greeted = once(socket, "message", { signal: limit }).then(([data]) => String(data));
    socket.resume();
    // Whichever comes later fails when the limit does; nobody waits for it any more.
    void Promise.allSettled([closed, greeted]);
    const first = await Promise.race([closed, greeted]);
    if (typeof first === "object") {
      const { message } = endOfClose(first.code, first.reason);
      const remedy =
        first.code === CLOSE.noCommonVersion
          ? `this gpunode speaks ${PROTOCOL}: upgrade the older of the two`
          : OPERATOR;
      return [bad("coordinator", message, remedy)];
    }
    const frame = parseFrame(first);
    const challenge =
      frame.ok && frame.value.type === "challenge" ? check(Challenge, frame.value, "challenge") : undefined;
    if (challenge?.ok !== true) {
      const said = `a WebSocket server answers there, but it does not greet as a coordinator of gpunode does (it said "${printable(first).slice(0, 80)}")`;
      return [bad("coordinator", said, "is this the address of the coordinator?")];
    }
    const { coordinatorId, time } = challenge.value;
    const answer = good(
      "coordinator",
      `it speaks ${PROTOCOL}, and calls itself ${printable(coordinatorId).slice(0, 80)}`,
    );
    return [answer, ...clocks(Date.parse(time) - now())];
  } finally {
    socket.close(CLOSE.goingAway, "only a look");
    socket.terminate();
  }
}

const OPERATOR = "ask the coordinator's operator: its log says why";

function clocks(aheadMs: number): Finding[] {
  if (!(Math.abs(aheadMs) > CLOCKS_APART_MS)) return [];
  const seconds = Math.round(Math.abs(aheadMs) / 1000);
  const apart =
    seconds < 120
      ? `${seconds} s`
      : seconds < 7200
        ? `${Math.round(seconds / 60)} min`
        : `${Math.round(seconds / 3600)} h`;
  const says = `this machine's clock is ${apart} ${aheadMs > 0 ? "behind" : "ahead of"} the coordinator's`;
  return [{ about: "clock", verdict: "doubtful", says, remedy: 'set it: "timedatectl set-ntp true"' }];
}

/** A connection to where the coordinator listens. */
async function wayTo(options: PreflightOptions, limit: AbortSignal): Promise<Socket> {
  const { host, port, target } = whereTo(options.address);
  if (options.proxy !== undefined) return await connectThroughProxy(proxyUrl(options.proxy), target, limit);
  const socket = tcpConnect({ host, port });
  try {
    await once(socket, "connect", { signal: limit });
    // Nobody else hears it once it is closed.
    return socket.on("error", () => undefined);
  } catch (error) {
    socket.on("error", () => undefined).destroy();
    throw error;
  }
}

/** What a failed step means, and what to do. */
function inWords(about: Finding["about"], error: DialError, options: PreflightOptions): Finding {
  const { http, message } = error;
  if (http === undefined) {
    const plain = !whereTo(options.address).isSecure && about === "coordinator";
    return bad(about, message, plain ? "does it want wss:// instead of ws://?" : undefined);
  }
  const { status, location } = http;
  const where = `HTTP ${status} for ${options.address.url.pathname}`;
  if (status >= 300 && status < 400) {
    const to = location === undefined ? "" : `, to ${printable(location).slice(0, 200)}`;
    return bad(about, `it sends on to another address (${where})${to}`, "give the address that leads to");
  }
  if (status === 401 || status === 403 || status === 407) {
    return bad(
      about,
      `something before the coordinator wants a login (${where})`,
      "it has to let agents through: they prove themselves by their key",
    );
  }
  if (status === 503 || status === 502 || status === 504) {
    return bad(
      about,
      `a server answers, but the coordinator behind it does not (${where})`,
      "is it up? Try again in a moment",
    );
  }
  if (status === 400 && !whereTo(options.address).isSecure) {
    return bad(
      about,
      `a server answers, and does not take what we send (${where})`,
      "does it want wss:// instead of ws://?",
    );
  }
  return bad(
    about,
    `a web server answers there, but it is no coordinator of gpunode (${where})`,
    "are host and port those of the coordinator?",
  );
}

function good(about: Finding["about"], says: string): Finding {
  return { about, verdict: "good", says };
}

function bad(about: Finding["about"], says: string, remedy?: string): Finding {
  return { about, verdict: "bad", says, ...(remedy !== undefined && { remedy }) };
}

function pick({ caFile }: PreflightOptions): { caFile?: string } {
  return caFile === undefined ? {} : { caFile };
}

function disposable<T extends Socket>(socket: T): Disposable & { socket: T } {
  socket.on("error", () => undefined);
  return { socket, [Symbol.dispose]: () => socket.destroy() };
}
