import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { type Coordinator, type CoordinatorOptions, startCoordinator } from "../../src/coordinator/server.ts";

/**
 * An agent as docs/protocol.md describes it, written from that page alone: none of the product's own agent is used, so
 * that the coordinator is held to the contract and not to its twin.
 */
export interface Frame {
  type: string;
  [key: string]: Loose;
}

/** What the coordinator sends is looked at by assertions, not by types: those would be the product's own. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Loose = any;

export interface Key {
  id: string;
  publicKey: string;
  privateKey: KeyObject;
}

export function newKey(): Key {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  return { id: nodeIdOf(raw), publicKey: raw.toString("base64url"), privateKey };
}

/** Base32 the slow way: through a string of bits. */
export function nodeIdOf(raw: Uint8Array): string {
  const bits = [...createHash("sha256").update(raw).digest()].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const letters = bits.match(/.{1,5}/g) ?? [];
  const text = letters.map((five) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(five.padEnd(5, "0"), 2)]);
  return text.join("").slice(0, 26);
}

export class AgentSide {
  readonly key: Key;
  readonly socket: WebSocket;
  readonly frames: Frame[] = [];
  closed: { code: number; reason: string } | undefined;
  #waiters: (() => void)[] = [];
  /** What is answered to each command; a frame type without an entry is answered `ok`. "silent" answers nothing. */
  replies: Record<string, "silent" | { code: string; message: string }> = {};
  autoReply = true;

  constructor(
    url: string,
    options: { key?: Key; protocols?: string[]; headers?: Record<string, string>; autoPong?: boolean } = {},
  ) {
    this.key = options.key ?? newKey();
    this.socket = new WebSocket(`${url}/v1/agent`, options.protocols ?? ["gpunode.v1"], {
      perMessageDeflate: true,
      autoPong: options.autoPong ?? true,
      ...(options.headers !== undefined && { headers: options.headers }),
    });
    this.socket.on("message", (data) => {
      const frame = JSON.parse(String(data)) as Frame;
      this.frames.push(frame);
      const answer = this.replies[frame.type];
      if (this.autoReply && frame.id !== undefined && frame.type !== "sync" && answer !== "silent") {
        this.send({
          type: "reply",
          ref: frame.id,
          ...(answer === undefined ? { ok: true } : { ok: false, error: answer }),
        });
      }
      this.#wake();
    });
    this.socket.on("close", (code, reason) => {
      this.closed = { code, reason: String(reason) };
      this.#wake();
    });
    this.socket.on("error", () => {});
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Waits until `look` finds something among what has come. */
  async until<T>(look: () => T | undefined, what: string, timeoutMs = 5000): Promise<T> {
    const deadline = Date.now() + timeoutMs;
    while (true) {
      const found = look();
      if (found !== undefined) return found;
      const left = deadline - Date.now();
      if (left <= 0)
        throw new Error(
          `no ${what}; closed: ${JSON.stringify(this.closed)}; frames: ${JSON.stringify(this.frames).slice(-1500)}`,
        );
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** The first frame of a type that was not taken yet. */
  async next(type: string, timeoutMs = 5000): Promise<Frame> {
    return this.until(
      () => {
        const at = this.frames.findIndex((frame) => frame.type === type);
        return at < 0 ? undefined : this.frames.splice(at, 1)[0];
      },
      `frame "${type}"`,
      timeoutMs,
    );
  }

  end(timeoutMs = 5000): Promise<{ code: number; reason: string }> {
    return this.until(() => this.closed, "close", timeoutMs);
  }

  send(frame: object | string): void {
    this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** `hello` as the contract wants it, with the changes a test makes. */
  hello(challenge: Frame, host: string, changes: Record<string, unknown> = {}): Frame {
    const { id, publicKey, privateKey } = this.key;
    const bytes = Buffer.from(["gpunode.v1", host, challenge.nonce, id].join("\n"));
    return {
      type: "hello",
      node: { id, publicKey, name: "rig", labels: { site: "garage" }, bootId: "boot", agentVersion: "9.9.9", later: 1 },
      signature: sign(null, bytes, privateKey).toString("base64url"),
      events: { oldest: 0, newest: 0 },
      workloads: [],
      ...changes,
    };
  }

  /** The whole handshake; returns `welcome`. */
  async join(changes: Record<string, unknown> = {}): Promise<Frame> {
    const challenge = await this.next("challenge");
    this.send(this.hello(challenge, new URL(this.socket.url).host, changes));
    return this.next("welcome");
  }

  /** Handshake, advertisement and `sync`; returns `sync`. */
  async start(advertisement: Frame = advertise(), changes: Record<string, unknown> = {}): Promise<Frame> {
    await this.join(changes);
    this.send(advertisement);
    return this.next("sync");
  }

  /** Sends workload events with the `seq` numbers given. */
  tell(events: Record<string, unknown>[]): void {
    const at = "2026-01-31T12:00:00.000Z";
    this.send({ type: "events", events: events.map((event) => ({ at, kind: "workload", ...event })) });
  }

  async leave(): Promise<void> {
    this.socket.terminate();
    await this.end();
  }
}

export function gpu(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    index: 0,
    uuid: "GPU-0",
    vendor: "nvidia",
    name: "NVIDIA T4",
    computeCapability: "7.5",
    vramMiB: 15360,
    tensorCores: { generation: 2, precisions: ["fp16", "int8", "int4"], sparsity: false },
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...changes,
  };
}

export function advertise(changes: Record<string, unknown> = {}): Frame {
  return {
    type: "advertise",
    revision: 1,
    gpus: [gpu()],
    host: { architecture: "amd64", cpus: 8, memoryMiB: 32_000 },
    engine: { kind: "docker", available: true },
    policy: { images: ["*"], hostPorts: "30000-30999", allowRoot: true },
    images: [],
    state: "available",
    ...changes,
  };
}

/** A folder that is gone after the test. */
export function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-coordinator-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A coordinator on a free port that is closed after the test. */
export async function coordinator(options: Partial<CoordinatorOptions> = {}): Promise<Coordinator> {
  const started = await startCoordinator({
    listen: { host: "127.0.0.1", port: 0 },
    stateDir: options.stateDir ?? scratch(),
    open: options.joinTokens === undefined,
    ...options,
  });
  onTestFinished(() => started.close());
  return started;
}

/** An agent's side whose socket is gone after the test. */
export function agent(url: string, options: ConstructorParameters<typeof AgentSide>[1] = {}): AgentSide {
  const side = new AgentSide(url, options);
  onTestFinished(() => side.socket.terminate());
  return side;
}

/** One request to the HTTP API. */
export async function api(
  { apiUrl }: Coordinator,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: Loose }> {
  const response = await fetch(`${apiUrl}/api/v1${path}`, {
    method,
    ...(body !== undefined && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  return { status: response.status, body: await response.json() };
}

/** Asks until `look` is content; for what the coordinator does by itself. */
export async function eventually<T>(ask: () => Promise<T>, look: (value: T) => boolean, timeoutMs = 5000): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  while (true) {
    const value = await ask();
    if (look(value)) return value;
    if (Date.now() > deadline) throw new Error(`did not come to pass: ${JSON.stringify(value).slice(0, 1500)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
