import type { WebSocket } from "ws";
import type * as z from "zod";
import type { Telemetry } from "../protocol/agent-frames.ts";
import type { Welcome } from "../protocol/coordinator-frames.ts";
import { Ack, Command, Sync } from "../protocol/coordinator-frames.ts";
import { ErrorFrame } from "../protocol/error-frame.ts";
import { BUG } from "../protocol/errors.ts";
import { CLOSE, HANDSHAKE_TIMEOUT_MS } from "../protocol/limits.ts";
import { check, type FrameProblem, parseFrame, type RawFrame, refOf } from "../protocol/parse.ts";
import { Advertiser } from "./advertiser.ts";
import { BadFrameBudget } from "./bad-frames.ts";
import { CommandAnswers } from "./command-answers.ts";
import type { DialledSocket } from "./dial.ts";
import { EventFlow } from "./event-flow.ts";
import { Handshake, type HandshakeOptions } from "./handshake.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { LinkDoors, ProgressReport, Sample } from "./needs.ts";
import { Outbox } from "./outbox.ts";
import { ProgressFlow } from "./progress-flow.ts";
import { endOfClose, printable, REFUSED_REMEDY, type SessionEnd } from "./session-end.ts";

export interface SessionOptions extends HandshakeOptions {
  handshakeTimeoutMs?: number;
  ackTimeoutMs?: number;
  /** Revision of the next advertisement. */
  nextRevision: () => number;
  onWelcome: (welcome: Welcome) => void;
  /** The coordinator was heard. */
  onRead: () => void;
  /** A sample was given to the socket, or left out. */
  onTelemetry: (isSent: boolean) => void;
  /** Milliseconds since the epoch. */
  now: () => number;
}

/** What a session has once it is welcome. */
interface Flows {
  heartbeat: Heartbeat;
  advertiser: Advertiser;
  events: EventFlow;
  progress: ProgressFlow;
  answers: CommandAnswers;
}

/**
 * One connection to a coordinator: the agent's side of docs/protocol.md.
 *
 *     greeting ── welcome ──▶ welcomed ── sync ──▶ synced
 *         └───────────┴── any end: close, silence, time-out, failure ──┴──▶ closed
 *
 * Frames are worked on one by one in the order they came. A session is disposable: whatever goes wrong in it ends it, a
 * new one begins with what both sides hold for good, and nothing that must last is kept here. A frame that can't be
 * used ends it only before `welcome`, or where such frames come in floods.
 */
export class Session implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #dialled: DialledSocket;
  readonly #doors: LinkDoors;
  readonly #options: SessionOptions;
  readonly #outbox: Outbox;
  readonly #handshake: Handshake;
  readonly #badFrames = new BadFrameBudget(() => performance.now());
  readonly #gone = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<SessionEnd>();
  readonly #handshakeTimer: NodeJS.Timeout;
  #cutOff: NodeJS.Timeout | undefined;
  #state: "greeting" | "welcomed" | "synced" | "closed" = "greeting";
  #flows: Flows | undefined;
  #end: Omit<SessionEnd, "welcomedForMs"> | undefined;
  #skipped = 0;
  #welcomedAtMs: number | undefined;
  #welcomedForMs = 0;

  /** Takes over a socket that has just been opened. */
  constructor(dialled: DialledSocket, doors: LinkDoors, options: SessionOptions) {
    this.#dialled = dialled;
    this.#socket = dialled.socket;
    this.#doors = doors;
    this.#options = options;
    this.#outbox = new Outbox(dialled.socket, doors.log);
    this.#handshake = new Handshake(doors, options);
    const limitMs = options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS;
    this.#handshakeTimer = setTimeout(
      () =>
        this.close(CLOSE.handshakeTimeout, `the coordinator did not finish the handshake within ${limitMs / 1000} s`),
      limitMs,
    );
    this.#socket.on("message", (data, isBinary) => this.#onMessage(String(data), { isBinary }));
    this.#socket.on("error", (error) => {
      this.#end ??= { ...endOfClose(1006, error.message), isRefused: false };
    });
    this.#socket.once("close", (code, reason) => this.#onClose(code, String(reason)));
    // Lost between its opening and here: the event has passed already.
    if (this.#socket.readyState === this.#socket.CLOSED) this.#onClose(1006, "");
    else this.#socket.resume();
  }

  /** Settles when the socket is gone; never rejects. */
  get ended(): Promise<SessionEnd> {
    return this.#ended.promise;
  }

  /** Sends the sample, or counts it as skipped where the coordinator does not keep up. */
  offerTelemetry(sample: Sample): void {
    if (this.#flows === undefined) return;
    const frame: Telemetry = { type: "telemetry", ...sample, skipped: this.#skipped };
    const isSent = !this.#outbox.isBehind && this.#outbox.send(frame);
    this.#skipped = isSent ? 0 : this.#skipped + 1;
    this.#options.onTelemetry(isSent);
  }

  offerProgress(report: ProgressReport): void {
    this.#flows?.progress.offer(report);
  }

  advertiseChanged(): void {
    this.#flows?.advertiser.changed();
  }

  /** Ends the session; more than once is no error. A peer that does not answer the close is cut off after a second. */
  close(code: number, reason: string): void {
    if (this.#state === "closed") return;
    this.#end ??= { message: reason, isRefused: false, isReplaced: false };
    this.#leave();
    // A close frame has room for 123 bytes of reason.
    this.#socket.close(code, Buffer.from(reason).subarray(0, 120).toString());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close(CLOSE.goingAway, "the agent ends the session");
    await this.#ended.promise;
  }

  // ------------------------------------------------------------------ in

  #onMessage(text: string, { isBinary }: { isBinary: boolean }): void {
    if (this.#state === "closed") return;
    try {
      const frame = isBinary ? BINARY : parseFrame(text);
      if (!frame.ok) this.#bad(frame.problem);
      else if (this.#state === "greeting") this.#greeted(frame.value);
      else this.#dispatch(frame.value);
    } catch (error) {
      this.#fail(error);
    }
  }

  #greeted(frame: RawFrame): void {
    const step = this.#handshake.take(frame);
    switch (step.kind) {
      case "hello":
        this.#outbox.send(step.hello);
        break;
      case "welcome":
        this.#welcomed(step.welcome, step.coordinator);
        break;
      case "reject": {
        const { code, message, retryAfterSeconds } = step.reject;
        this.#end = {
          message: `the coordinator refuses this node: ${printable(message)} (${printable(code)})`,
          isRefused: true,
          isReplaced: false,
          ...(code === "refused" && retryAfterSeconds === undefined && { remedy: REFUSED_REMEDY }),
          ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
        };
        this.#options.rotation.turnedDown(this.#end.message);
        this.close(1000, "rejected");
        break;
      }
      case "complaint":
        this.#end = { ...endOfClose(CLOSE.badMessage, `${step.error.code}: ${step.error.message}`) };
        break;
      case "violation":
        this.#bad(step.problem);
    }
  }

  #welcomed(welcome: Welcome, coordinator: string): void {
    clearTimeout(this.#handshakeTimer);
    this.#end = undefined;
    this.#state = "welcomed";
    const { events, memory, advertisement, log } = this.#doors;
    const { nextRevision, now, ackTimeoutMs } = this.#options;
    // From here on the node may be another one.
    this.#options.rotation.welcomed(welcome.rotatedTo);
    const { nodeId } = this.#doors.identity;
    if (!memory.hasWelcomed(coordinator, nodeId)) memory.rememberWelcome(coordinator, nodeId);
    events.resume(welcome.acked);
    this.#welcomedAtMs = performance.now();
    this.#options.onWelcome(welcome);
    const onFailure = (error: unknown) => this.#fail(error);
    // The advertisement comes first: a coordinator answers it with `sync`.
    const advertiser = new Advertiser(this.#outbox, { read: advertisement, nextRevision, onFailure });
    this.#flows = {
      advertiser,
      heartbeat: new Heartbeat(this.#socket, this.#dialled.transport, {
        heartbeatSeconds: welcome.heartbeatSeconds,
        onRead: this.#options.onRead,
        onSilent: () =>
          this.close(CLOSE.goingAway, `nothing was heard of the coordinator for ${2 * welcome.heartbeatSeconds} s`),
      }),
      events: new EventFlow(events, this.#outbox, {
        acked: welcome.acked,
        now,
        onFailure,
        ...(ackTimeoutMs !== undefined && { ackTimeoutMs }),
      }),
      progress: new ProgressFlow(this.#outbox),
      answers: new CommandAnswers(this.#doors, this.#outbox),
    };
    log.debug({ acked: welcome.acked, newest: events.newest }, "session welcomed");
  }

  #dispatch(frame: RawFrame): void {
    const { type, id } = frame;
    if (type === "ack") this.#taken(Ack, frame, ({ seq }) => this.#acked(seq, id));
    else if (type === "sync") this.#taken(Sync, frame, (sync) => this.#synced(sync.workloads, sync.id));
    else if (type === "error") this.#taken(ErrorFrame, frame, (error) => this.#complained(error));
    else if (COMMANDS.has(type)) this.#taken(Command, frame, (command) => this.#commanded(command));
    else if (HANDSHAKE_TYPES.has(type)) this.#bad(problem(`"${type}" came after the handshake`, id));
    else {
      const message = `this agent knows no frame of type "${printable(type).slice(0, 60)}"`;
      this.#bad({ ...problem(message, id), code: "unsupported" });
    }
  }

  #taken<T>(schema: z.ZodType<T>, frame: RawFrame, use: (value: T) => void): void {
    const parsed = check(schema, frame, frame.type, frame.id);
    if (parsed.ok) use(parsed.value);
    else this.#bad(parsed.problem);
  }

  #acked(seq: number, id: unknown): void {
    const { newest } = this.#doors.events;
    if (seq <= newest) this.#flows?.events.acked(seq);
    else this.#bad(problem(`ack of event ${seq}, but the newest is ${newest}`, id));
  }

  /** A set that cannot be taken in (the disk refuses) ends the session; the next one brings it again. */
  #synced(workloads: readonly unknown[], id: string | undefined): void {
    this.#doors.onSync(workloads);
    this.#state = "synced";
    if (id !== undefined) this.#outbox.send({ type: "reply", ref: id, ok: true });
  }

  #commanded(command: Command): void {
    if (command.type === "assign" && this.#state !== "synced") {
      this.#bad(problem("assign came before sync: the complete desired set comes first in every session", command.id));
    } else {
      this.#flows?.answers.take(command);
    }
  }

  #complained({ code, message }: { code: string; message: string }): void {
    const isFlood = !this.#badFrames.spend();
    if (!isFlood)
      this.#doors.log.warn(
        { code },
        `the coordinator could not use a frame: ${printable(message)}. If it is older or newer than this gpunode, upgrade the older one`,
      );
  }

  /** Tells the coordinator what was wrong with its frame; before `welcome`, or in a flood, that is the end. */
  #bad({ code, message, ref }: FrameProblem): void {
    const isFlood = !this.#badFrames.spend();
    if (this.#state === "greeting" || isFlood) {
      const reason = isFlood ? `too many frames that cannot be used; the last: ${message}` : message;
      this.#end ??= {
        message: `the coordinator sent what this gpunode cannot use (${code}): ${reason}`,
        isRefused: false,
        isReplaced: false,
        remedy: "upgrade the older of the two, or tell its operator",
      };
      this.close(CLOSE.badMessage, reason);
      return;
    }
    this.#doors.log.debug({ code, ref }, `a frame of the coordinator cannot be used: ${message}`);
    if (ref === undefined) this.#outbox.send({ type: "error", code, message });
    else this.#outbox.send({ type: "reply", ref, ok: false, error: { code, message } });
  }

  // ------------------------------------------------------------------ end

  #fail(error: unknown): void {
    this.#doors.log.error({ err: error }, `session ends: ${BUG}`);
    this.close(1011, "an internal error of the agent; its log has it");
  }

  #onClose(code: number, reason: string): void {
    this.#end ??= endOfClose(code, reason);
    if (this.#state === "greeting" && TURNED_DOWN.has(code)) this.#options.rotation.turnedDown(this.#end.message);
    if (this.#state !== "closed") this.#leave();
    clearTimeout(this.#cutOff);
    const end = { ...this.#end, welcomedForMs: this.#welcomedForMs };
    void this.#gone.promise.then(() => this.#ended.resolve(end));
  }

  /** Stops everything this session drives; the socket may still be closing. */
  #leave(): void {
    this.#state = "closed";
    clearTimeout(this.#handshakeTimer);
    this.#cutOff = setTimeout(() => this.#socket.terminate(), 1000);
    const flows = this.#flows;
    this.#flows = undefined;
    if (flows === undefined) this.#gone.resolve();
    else {
      for (const flow of [flows.heartbeat, flows.advertiser, flows.events, flows.progress]) flow[Symbol.dispose]();
      void flows.answers[Symbol.asyncDispose]().then(() => this.#gone.resolve());
    }
    if (this.#welcomedAtMs === undefined) return;
    this.#welcomedForMs = performance.now() - this.#welcomedAtMs;
    try {
      this.#doors.onSessionEnd();
    } catch (error) {
      this.#doors.log.error({ err: error }, `the end of a session could not be told: ${BUG}`);
    }
  }
}

const BINARY = {
  ok: false,
  problem: { code: "bad_message", message: "frames are text, this one is binary" },
} as const;
const COMMANDS: ReadonlySet<string> = new Set(Command.options.map(({ shape }) => shape.type.value));
/** The coordinator ends a handshake with one of these where our `hello` is not to its liking. */
const TURNED_DOWN: ReadonlySet<number> = new Set([CLOSE.badMessage, CLOSE.notAuthenticated, CLOSE.refused]);
const HANDSHAKE_TYPES: ReadonlySet<string> = new Set(["challenge", "welcome", "reject"]);

function problem(message: string, id: unknown): FrameProblem {
  const ref = refOf(id);
  return { code: "bad_message", message, ...(ref !== undefined && { ref }) };
}
