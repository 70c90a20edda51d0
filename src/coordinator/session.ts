import { randomBytes, randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { RawData, WebSocket } from "ws";
import type * as z from "zod";
import { Advertise, Hello, LogEnd, Log as LogFrame, Progress, Reply, Telemetry } from "../protocol/agent-frames.ts";
import { ErrorFrame } from "../protocol/error-frame.ts";
import { CLOSE, HANDSHAKE_TIMEOUT_MS } from "../protocol/limits.ts";
import { check, type FrameProblem, parseFrame, type RawFrame, refOf } from "../protocol/parse.ts";
import { guessesTooOften, notAdmitted, type Rejection, refuteHello } from "./handshake.ts";
import { readEvents } from "./incoming-events.ts";
import { LogStream, NODE_DISCONNECTED } from "./log-stream.ts";
import { GONE, PendingCommands } from "./pending-commands.ts";
import type { CommandAnswer, CommandBody, LogsAnswer, SessionDoors, SessionSettings } from "./session-doors.ts";
import type { Stranger } from "./strangers.ts";

/**
 * One connected agent, from its socket's opening to its end: the coordinator's side of docs/protocol.md.
 *
 *     greeting ── hello accepted ──▶ welcomed ── first advertise ──▶ synced
 *         └───────────────┴── any end: close code, time-out, silence ──┴──▶ closed
 *
 * A session is disposable: whatever goes wrong closes it, and the agent comes back with a new one, which begins with what
 * both sides hold for good (`acked` and `sync`). Nothing that must last is kept here.
 */
export class Session {
  readonly id = randomUUID();
  /** Newest of each; gone with the session. */
  advertisement: Advertise | undefined;
  telemetry: Telemetry | undefined;
  readonly progress = new Map<string, Progress>();
  /** As the node introduced itself; where it brought a new key, under that. */
  hello: Hello | undefined;
  /** The id of the key it gave up at the beginning of this session. */
  replaces: string | undefined;
  /** Last event of this node that is held. */
  acked = 0;

  readonly #socket: WebSocket;
  readonly #host: string | undefined;
  readonly #address: string | undefined;
  readonly #doors: SessionDoors;
  readonly #settings: SessionSettings;
  readonly #stranger: Stranger;
  readonly #nonce = randomBytes(32).toString("base64url");
  readonly #commands: PendingCommands;
  readonly #streams = new Map<string, LogStream>();
  readonly #holders = new Set<object>();
  /** What is done with each frame of a welcomed agent. */
  readonly #takers: Record<string, (frame: RawFrame) => void> = {
    advertise: this.#taker(Advertise, (value) => this.#advertised(value)),
    telemetry: this.#taker(Telemetry, (value) => {
      this.telemetry = value;
    }),
    progress: this.#taker(Progress, (value) => {
      if (this.progress.size < MAX_PROGRESS || this.progress.has(value.workload)) {
        this.progress.set(value.workload, value);
      }
    }),
    events: (frame) => this.#events(frame),
    reply: this.#taker(Reply, (value) => this.#commands.replied(value)),
    log: this.#taker(LogFrame, (value) => this.#streams.get(value.ref)?.push(value)),
    logEnd: this.#taker(LogEnd, ({ ref, reason }) => {
      this.#streams.get(ref)?.end(reason);
      this.#streams.delete(ref);
    }),
    error: this.#taker(ErrorFrame, ({ code, message }) =>
      this.#settings.log.warn(
        { node: this.nodeId, code },
        `the agent could not use a frame: ${message}. If it is older or newer than this coordinator, upgrade the older one`,
      ),
    ),
  };
  #state: "greeting" | "welcomed" | "synced" | "closed" = "greeting";
  #isReplaced = false;
  #badFrames = 0;
  #lastReadMs = performance.now();
  #timers: NodeJS.Timeout[] = [];

  /** Takes a socket whose subprotocol has been agreed on, and greets. */
  constructor(
    socket: WebSocket,
    request: IncomingMessage,
    doors: SessionDoors,
    settings: SessionSettings,
    stranger: Stranger,
  ) {
    this.#socket = socket;
    this.#host = request.headers.host;
    this.#address = request.socket.remoteAddress;
    this.#doors = doors;
    this.#settings = settings;
    this.#stranger = stranger;
    this.#commands = new PendingCommands((frame) => this.#send(frame), { timeoutMs: settings.commandTimeoutMs });
    // Bytes, not frames: a large frame that comes slowly is a sign of life as well.
    let bytesUnproved = 0;
    request.socket.on("data", (chunk: Buffer) => {
      this.#lastReadMs = performance.now();
      if (this.#state !== "greeting") return;
      bytesUnproved += chunk.length;
      if (bytesUnproved > MAX_UNPROVED_BYTES) socket.terminate();
    });
    socket.on("message", (data, isBinary) => this.#onMessage(data, { isBinary }));
    socket.on("close", (code) => {
      this.close(CLOSE.goingAway, "the agent closed");
      // Only who is there can answer a close with its code.
      if (this.#isReplaced && code === CLOSE.replaced) this.#doors.outlived(this);
    });
    socket.on("error", (error) => settings.log.debug({ node: this.nodeId, err: error }, "agent socket failed"));
    const handshakeMs = settings.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS;
    this.#timers.push(
      setTimeout(() => this.close(CLOSE.handshakeTimeout, `no hello within ${handshakeMs / 1000} s`), handshakeMs),
    );
    const { coordinatorId, now } = settings;
    this.#send({ type: "challenge", nonce: this.#nonce, coordinatorId, time: new Date(now()).toISOString() });
  }

  /** The node's id; "" until `hello` came. */
  get nodeId(): string {
    return this.hello?.node.id ?? "";
  }

  /** True once the agent has the desired set and may be given commands. */
  get isSynced(): boolean {
    return this.#state === "synced";
  }

  /**
   * Sends a command and waits for its reply. Never rejects: where none can come any more, or none came in time, the
   * answer says so.
   */
  command(command: CommandBody): Promise<CommandAnswer> {
    return this.#request(randomUUID(), command);
  }

  /** Asks for a workload's output. The stream ends by itself; `stop` ends it early. */
  async logs(request: { workload: string; follow: boolean; tail?: number; since?: string }): Promise<LogsAnswer> {
    const ref = randomUUID();
    const holder = {};
    const cut = () => {
      if (this.#streams.delete(ref)) this.#notify({ type: "logsStop", ref });
    };
    const stream = new LogStream(
      { hold: () => this.#hold(holder), release: () => this.#release(holder), cut },
      { stallMs: this.#settings.logStallMs },
    );
    const stop = (reason: string) => {
      stream.end(reason);
      cut();
    };
    this.#streams.set(ref, stream);
    const answer = await this.#request(ref, { type: "logs", ...request });
    if (answer.ok) return { ok: true, stream, stop };
    this.#streams.delete(ref);
    stream.end("refused");
    return answer;
  }

  /** Ends the session; more than once is no error. A peer that does not answer the close is cut off after a second. */
  close(code: number, reason: string): void {
    if (this.#state === "closed") return;
    const wasWelcomed = this.#state !== "greeting";
    this.#state = "closed";
    this.#isReplaced = code === CLOSE.replaced;
    this.#stranger.leave();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#commands.giveUp();
    for (const stream of this.#streams.values()) stream.end(NODE_DISCONNECTED);
    this.#streams.clear();
    this.#socket.resume();
    // A close frame has room for 123 bytes of reason.
    this.#socket.close(code, Buffer.from(reason).subarray(0, 120).toString());
    const cutOff = setTimeout(() => this.#socket.terminate(), 1000);
    this.#socket.once("close", () => clearTimeout(cutOff));
    if (this.#socket.readyState === this.#socket.CLOSED) clearTimeout(cutOff);
    if (wasWelcomed) this.#doors.closed(this, { code, reason });
  }

  #onMessage(data: RawData, { isBinary }: { isBinary: boolean }): void {
    if (this.#state === "closed") return;
    try {
      const frame = isBinary ? BINARY : parseFrame(data.toString());
      if (!frame.ok) this.#bad(frame.problem);
      else if (this.#state === "greeting") this.#greeted(frame.value);
      else this.#dispatch(frame.value);
    } catch (error) {
      // A full disk, mostly. What was not stored was not acked, so the agent sends it again in its next session.
      this.#settings.log.error(
        { node: this.nodeId, err: error },
        "session ends: a frame could not be worked on, and is sent again in the next one; is there room on the disk of the state folder?",
      );
      this.close(1011, "internal");
    }
  }

  #greeted(frame: RawFrame): void {
    const parsed = check(Hello, frame, `expected "hello", got "${frame.type.slice(0, 60)}"`);
    if (!parsed.ok) {
      this.#bad(parsed.problem);
      return;
    }
    const hello = parsed.value;
    const { database, hosts, open, log } = this.#settings;
    const refuted = refuteHello(hello, { host: this.#host, nonce: this.#nonce, hosts });
    if (refuted !== undefined) {
      this.#reject(refuted);
      return;
    }
    const guesses = hello.joinToken !== undefined && !open && database.node(hello.node.id) === undefined;
    const waitSeconds = guesses ? this.#stranger.waitSeconds() : undefined;
    if (waitSeconds !== undefined) {
      this.#reject(guessesTooOften(waitSeconds));
      return;
    }
    const admitted = database.admit(hello, { open });
    if (!admitted.ok) {
      if (guesses) this.#stranger.guessedWrong();
      this.#reject(notAdmitted(hello, admitted.why));
      return;
    }
    const { nodeId, publicKey, replaces } = admitted;
    this.hello = { ...hello, node: { ...hello.node, id: nodeId, publicKey } };
    this.replaces = replaces;
    this.acked = admitted.acked;
    const about = { node: nodeId, name: hello.node.name };
    if (admitted.isNew) log.info(about, "new node admitted");
    if (replaces !== undefined)
      log.info({ ...about, replaces }, "node has a new key; its old one is refused from now on");
    if (admitted.unseen > 0 && !admitted.isNew) {
      log.warn(
        { ...about, count: admitted.unseen },
        'events are neither here nor in the node\'s log any more; "gpunode usage" on the node still has the usage records among them',
      );
    }
    this.#state = "welcomed";
    this.#stranger.leave();
    this.#doors.welcomed(this);
    this.#watch();
    const { heartbeatSeconds, leaseSeconds, telemetryIntervalMs } = this.#settings;
    const { acked } = admitted;
    const rotatedTo = replaces === undefined ? {} : { rotatedTo: nodeId };
    this.#send({
      ...{ type: "welcome", sessionId: this.id, heartbeatSeconds, leaseSeconds, telemetryIntervalMs, acked },
      ...rotatedTo,
    });
  }

  /** Pings, and closes when nothing was read for two heartbeats, counted from the last byte. */
  #watch(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    const heartbeatMs = this.#settings.heartbeatSeconds * 1000;
    const pings = setInterval(() => this.#socket.ping(), heartbeatMs);
    const look = () => {
      if (this.#holders.size > 0) this.#lastReadMs = performance.now();
      const leftMs = this.#lastReadMs + 2 * heartbeatMs - performance.now();
      if (leftMs <= 0) this.close(CLOSE.goingAway, "nothing was read for two heartbeats");
      else this.#timers = [pings, setTimeout(look, leftMs)];
    };
    look();
  }

  #dispatch(frame: RawFrame): void {
    const { type, id } = frame;
    const take = Object.hasOwn(this.#takers, type) ? this.#takers[type] : undefined;
    if (take !== undefined) {
      take(frame);
      return;
    }
    const known = refOf(id);
    const ref = known === undefined ? {} : { ref: known };
    if (type === "hello") this.#bad({ code: "bad_message", message: "hello came twice", ...ref });
    else this.#bad({ code: "unsupported", message: `"${type.slice(0, 60)}" is no frame for a coordinator`, ...ref });
  }

  #taker<T>(schema: z.ZodType<T>, use: (value: T) => void): (frame: RawFrame) => void {
    return (frame) => {
      const parsed = check(schema, frame, frame.type, frame.id);
      if (parsed.ok) use(parsed.value);
      else this.#bad(parsed.problem);
    };
  }

  #advertised(advertisement: Advertise): void {
    this.advertisement = advertisement;
    this.#settings.database.advertise(this.nodeId, advertisement);
    if (this.#state === "welcomed") {
      this.#send({ type: "sync", workloads: this.#doors.desired(this) });
      this.#state = "synced";
    }
    this.#doors.advertised(this);
  }

  /** Stores what comes next in order, then acks all that is held. */
  #events(frame: RawFrame): void {
    const { events, problem } = readEvents(frame.events);
    const result = this.#settings.database.storeEvents(this.nodeId, events);
    this.acked = result.acked;
    if (result.beyondHole !== undefined) {
      const { beyondHole: seq, acked } = result;
      this.#settings.log.warn(
        { node: this.nodeId, seq, acked },
        "events came with a hole before them and were not taken; the node sends them again in order",
      );
    }
    this.#send({ type: "ack", seq: result.acked });
    if (problem !== undefined) this.#bad(problem);
    this.#doors.stored(this, result);
  }

  #request(id: string, command: CommandBody): Promise<CommandAnswer> {
    return this.isSynced ? this.#commands.send(id, command) : Promise.resolve({ ok: false, why: "gone", error: GONE });
  }

  /** A command whose reply changes nothing. */
  #notify(command: CommandBody): void {
    if (this.isSynced) this.#send({ ...command, id: randomUUID() });
  }

  #send(frame: object): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send(JSON.stringify(frame));
    if (this.#socket.bufferedAmount > MAX_UNREAD_BYTES) {
      this.#settings.log.warn({ node: this.nodeId }, "session ends: the agent does not read; it may come back");
      this.#socket.terminate();
    }
  }

  #bad(problem: FrameProblem): void {
    if (this.#state === "greeting") {
      this.#reject({ closeCode: CLOSE.badMessage, code: problem.code, message: problem.message });
      return;
    }
    this.#send({ type: "error", ...problem });
    this.#badFrames += 1;
    if (this.#badFrames >= MAX_BAD_FRAMES) this.close(CLOSE.badMessage, `${MAX_BAD_FRAMES} frames could not be used`);
  }

  #reject({ closeCode, remedy, ...told }: Rejection): void {
    const { code, message } = told;
    const advice = remedy === undefined ? "" : `; ${remedy}`;
    this.#settings.log.warn({ code, address: this.#address }, `node not let in: ${message}${advice}`);
    this.#send({ type: "reject", ...told });
    this.close(closeCode, message);
  }

  #hold(holder: object): void {
    this.#holders.add(holder);
    this.#socket.pause();
  }

  #release(holder: object): void {
    this.#holders.delete(holder);
    if (this.#holders.size > 0) return;
    this.#lastReadMs = performance.now();
    this.#socket.resume();
  }
}

const BINARY = {
  ok: false,
  problem: { code: "bad_message", message: "frames are text, this one is binary" },
} as const;
/** A `hello` is a frame, and has at most 1 MiB; nobody else's bytes are kept. */
const MAX_UNPROVED_BYTES = 2 * 1024 * 1024;
/** An agent that reads nothing while this much waits for it is cut off. */
const MAX_UNREAD_BYTES = 32 * 1024 * 1024;
/** Workloads of one node whose progress is kept. */
const MAX_PROGRESS = 1000;
/** So many unusable frames in one session are a flood. */
const MAX_BAD_FRAMES = 100;
