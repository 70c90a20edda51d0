import { createHash, createPublicKey, randomBytes, randomUUID, verify } from "node:crypto";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";

/**
 * A coordinator as docs/protocol.md describes it, written from that page alone: it uses none of the product's code, so
 * that the agent is held to the contract and not to its twin. It does nothing by itself; a test says what it sends.
 */
export interface Frame {
  type: string;
  [key: string]: Loose;
}

/** What the agent sends is looked at by assertions, not by types: those would be the product's own. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Loose = any;

export interface FakeCoordinatorOptions {
  /** PEM; with it the server speaks TLS. */
  tls?: { cert: string; key: string; ca?: string; requestCert?: boolean };
  /** Chosen subprotocol; `false` chooses none. */
  subprotocol?: string | false;
  /** Answers the HTTP request instead of the upgrade. */
  refuseHttp?: { status: number; headers?: Record<string, string> };
  /** Port of an earlier one, to come back at the same place. */
  port?: number;
  coordinatorId?: string;
}

export class FakeCoordinator implements AsyncDisposable {
  readonly sessions: FakeSession[] = [];
  readonly coordinatorId: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #isSecure: boolean;
  #taken = 0;
  #waiters: (() => void)[] = [];

  constructor(server: Server, options: FakeCoordinatorOptions) {
    this.#server = server;
    this.#isSecure = options.tls !== undefined;
    this.coordinatorId = options.coordinatorId ?? "fake-coordinator";
    const { subprotocol = "gpunode.v1", refuseHttp } = options;
    const upgrades = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      maxPayload: 64 * 1024 * 1024,
      handleProtocols: () => subprotocol,
    });
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("upgrade", (request, socket, head) => {
      if (refuseHttp !== undefined) {
        const headers = Object.entries(refuseHttp.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
        socket.end(`HTTP/1.1 ${refuseHttp.status} No\r\n${headers.join("")}Content-Length: 0\r\n\r\n`);
        return;
      }
      upgrades.handleUpgrade(request, socket, head, (webSocket) => {
        this.sessions.push(new FakeSession(webSocket, request, this.coordinatorId));
        for (const wake of this.#waiters.splice(0)) wake();
      });
    });
  }

  static async start(options: FakeCoordinatorOptions = {}): Promise<FakeCoordinator> {
    const server = options.tls === undefined ? createServer() : createTlsServer(options.tls);
    const fake = new FakeCoordinator(server, options);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(options.port ?? 0, "127.0.0.1", resolve);
    });
    return fake;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#isSecure ? "wss" : "ws"}://localhost:${this.port}`;
  }

  /** The next session that nobody has asked for yet, when it comes. */
  async next(timeoutMs = 5000): Promise<FakeSession> {
    const deadline = Date.now() + timeoutMs;
    while (true) {
      const session = this.sessions[this.#taken];
      if (session !== undefined) {
        this.#taken += 1;
        return session;
      }
      if (Date.now() > deadline) throw new Error("the agent did not dial");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(1, deadline - Date.now()));
        this.#waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Cuts every connection, without a word. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** The coordinator's end of one connection. */
export class FakeSession {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
  readonly nonce = randomBytes(32).toString("base64url");
  /** Frames that no test has taken yet. */
  readonly frames: Frame[] = [];
  readonly coordinatorId: string;
  pings = 0;
  bytesRead = 0;
  closed: { code: number; reason: string } | undefined;
  #waiters: (() => void)[] = [];

  constructor(socket: WebSocket, request: IncomingMessage, coordinatorId: string) {
    this.socket = socket;
    this.request = request;
    this.coordinatorId = coordinatorId;
    socket.on("message", (data) => {
      const text = String(data);
      this.bytesRead += text.length;
      this.frames.push(JSON.parse(text) as Frame);
      this.#wake();
    });
    socket.on("ping", () => {
      this.pings += 1;
      this.#wake();
    });
    socket.on("close", (code, reason) => {
      this.closed = { code, reason: String(reason) };
      this.#wake();
    });
    socket.on("error", () => undefined);
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  send(frame: object | string): void {
    this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** Waits until `look` finds something. */
  async until<T>(look: () => T | undefined, what: string, timeoutMs = 20_000): Promise<T> {
    const deadline = Date.now() + timeoutMs;
    while (true) {
      const found = look();
      if (found !== undefined) return found;
      const leftMs = deadline - Date.now();
      if (leftMs <= 0) {
        const seen = JSON.stringify(this.frames).slice(0, 1500);
        throw new Error(`no ${what}; closed: ${JSON.stringify(this.closed)}; frames: ${seen}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** The first frame of a type that nobody has taken, when it comes. Those of other types stay. */
  next(type: string, timeoutMs?: number): Promise<Frame> {
    const take = () => {
      const at = this.frames.findIndex((frame) => frame.type === type);
      return at < 0 ? undefined : this.frames.splice(at, 1)[0];
    };
    return this.until(take, `frame "${type}"`, timeoutMs);
  }

  end(timeoutMs?: number): Promise<{ code: number; reason: string }> {
    return this.until(() => this.closed, "close", timeoutMs);
  }

  challenge(changes: object = {}): void {
    const { nonce, coordinatorId } = this;
    this.send({ type: "challenge", nonce, coordinatorId, time: new Date().toISOString(), ...changes });
  }

  welcome(changes: object = {}): void {
    this.send({
      type: "welcome",
      sessionId: randomUUID(),
      heartbeatSeconds: 15,
      leaseSeconds: 60,
      telemetryIntervalMs: 1000,
      acked: 0,
      ...changes,
    });
  }

  /** Challenge, a verified hello, welcome, advertise. Returns the hello. */
  async join(welcome: object = {}): Promise<Frame> {
    this.challenge();
    const hello = await this.next("hello");
    this.verify(hello);
    this.welcome(welcome);
    await this.next("advertise");
    return hello;
  }

  /** The whole way to a session that takes assignments. */
  async start(welcome: object = {}, workloads: unknown[] = []): Promise<Frame> {
    const hello = await this.join(welcome);
    this.send({ type: "sync", workloads });
    return hello;
  }

  /** Sends a command and waits for its reply. */
  async command(command: Frame): Promise<Frame> {
    const id = command.id ?? randomUUID();
    this.send({ ...command, id });
    const take = () => {
      const at = this.frames.findIndex((frame) => frame.type === "reply" && frame.ref === id);
      return at < 0 ? undefined : this.frames.splice(at, 1)[0];
    };
    return this.until(take, `reply to ${command.type}`);
  }

  /** Events up to and with `seq`, in the order they came, repeats and all. */
  async events(seq: number, timeoutMs?: number): Promise<Frame[]> {
    const all: Frame[] = [];
    await this.until(
      () => {
        for (let at = this.frames.findIndex(isEvents); at >= 0; at = this.frames.findIndex(isEvents)) {
          all.push(...(this.frames.splice(at, 1)[0]?.events ?? []));
        }
        return all.some((event) => event.seq === seq) ? true : undefined;
      },
      `event ${seq}`,
      timeoutMs,
    );
    return all;
  }

  /** Throws unless the hello proves the key whose id it names, to the host it dialled and for this nonce. */
  verify(hello: Frame): void {
    const raw = Buffer.from(hello.node.publicKey, "base64url");
    if (hello.node.id !== nodeIdOf(raw)) throw new Error(`${hello.node.id} is not the id of this key`);
    const signed = ["gpunode.v1", this.request.headers.host, this.nonce, hello.node.id].join("\n");
    demandSignature(raw, signed, hello.signature);
  }

  /** The id of the key that the hello asks to be known by. Throws unless both keys ask for it, here and now. */
  verifyRotation(hello: Frame): string {
    this.verify(hello);
    const { publicKey, proof, signature } = hello.rotation;
    const signed = ["gpunode.v1 rotate", this.request.headers.host, this.nonce, hello.node.id, publicKey].join("\n");
    demandSignature(Buffer.from(hello.node.publicKey, "base64url"), signed, proof);
    const raw = Buffer.from(publicKey, "base64url");
    demandSignature(raw, signed, signature);
    return nodeIdOf(raw);
  }
}

function demandSignature(raw: Buffer, signed: string, signature: string): void {
  if (raw.length !== 32) throw new Error(`the public key has ${raw.length} bytes`);
  // SPKI of an Ed25519 key (RFC 8410): twelve bytes that are always the same, then the key.
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
  const key = createPublicKey({ key: spki, format: "der", type: "spki" });
  if (!verify(null, Buffer.from(signed), key, Buffer.from(signature, "base64url"))) {
    throw new Error("the signature does not hold");
  }
}

function isEvents(frame: Frame): boolean {
  return frame.type === "events";
}

/** Base32 the slow way: through a string of bits. */
function nodeIdOf(raw: Uint8Array): string {
  const bits = [...createHash("sha256").update(raw).digest()].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const letters = (bits.match(/.{5}/g) ?? []).map(
    (five) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(five, 2)],
  );
  return letters.join("").slice(0, 26);
}
