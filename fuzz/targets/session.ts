import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WebSocket } from "ws";
import type * as z from "zod";
import { coordinatorAddress, dial } from "../../src/link/dial.ts";
import { type Identity, loadIdentity } from "../../src/link/identity.ts";
import type { LinkDoors } from "../../src/link/needs.ts";
import { KeyRotation } from "../../src/link/rotation.ts";
import { Session } from "../../src/link/session.ts";
import { AgentFrame } from "../../src/protocol/agent-frames.ts";
import { Ack, Challenge, Command, CoordinatorFrame, Sync, Welcome } from "../../src/protocol/coordinator-frames.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { type DurableEvent, EventBody } from "../../src/protocol/event.ts";
import { CLOSE, MAX_FRAME_BYTES } from "../../src/protocol/limits.ts";
import { FakeCoordinator, type FakeSession } from "../../test/support/fake-coordinator.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { ensure, type TargetGroup, target } from "../target.ts";
import { frameText } from "./frames.ts";

/** What a coordinator does to a session, in order. */
export interface Moves {
  /** How far it comes by the book first. */
  begin: "nothing" | "challenge" | "welcome" | "sync";
  moves: Move[];
  events: EventBody[];
}
type Move = { text: string } | { binary: Buffer } | { ping: string } | { close: number } | { cut: true };

/** Close codes an agent may end a session with: the contract's, and those of RFC 6455 that `ws` itself gives to bytes that are no frame. */
const CLOSES: ReadonlySet<number> = new Set([1000, 1002, 1005, 1006, 1007, 1009, ...Object.values(CLOSE)]);

const ANSWERS = [
  () => undefined,
  () => {
    throw new GpunodeError("gpu_busy", "held", { details: { free: 0 } });
  },
  async () => {
    throw new GpunodeError("internal", "later");
  },
];

function conversation(draw: Draw): Moves {
  const schemas = draw.any<readonly z.ZodType[]>(
    () => CoordinatorFrame.options,
    () => Command.options,
    () => [Ack, Sync, Challenge, Welcome],
  );
  const text = (): Move => ({ text: frameText(draw, schemas) });
  const move = () =>
    draw.any<Move>(text, text, text, text, text, text, text, text, () =>
      draw.any<Move>(
        () => ({ binary: draw.bytes(20) }),
        () => ({ ping: "x".repeat(draw.below(126)) }),
        () => ({ close: draw.of([1000, 1001, 1011, 4000, 4403, 4409, 4999]) }),
        () => ({ cut: true }),
      ),
    );
  return {
    begin: draw.of(["nothing", "challenge", "welcome", "sync", "sync"]),
    moves: draw.list(40, move),
    events: draw.list(5, () => valid(draw, EventBody) as EventBody),
  };
}

/** The doors of an agent whose log holds some events; what it logs as an error is a fault of ours. */
function doorsOf(identity: Identity, bodies: readonly EventBody[], errors: string[]): LinkDoors {
  const events = bodies.map(
    (body, index): DurableEvent => ({ seq: index + 1, at: new Date(0).toISOString(), ...body }),
  );
  let commands = 0;
  return {
    identity,
    events: {
      oldest: events.length === 0 ? 0 : 1,
      newest: events.length,
      after: (seq, limit) => events.filter((event) => event.seq > seq).slice(0, limit),
      acked: (seq) => ensure(seq <= events.length, `an ack of ${seq} of ${events.length} events came through`),
      resume: () => undefined,
      onAppend: () => () => undefined,
    },
    memory: { hasWelcomed: () => false, rememberWelcome: () => undefined },
    describeNode: () => ({ node: { name: "n", labels: {}, bootId: "b", agentVersion: "0" }, workloads: [] }),
    advertisement: () => ({
      gpus: [],
      host: { architecture: "amd64", cpus: 1, memoryMiB: 1 },
      engine: { kind: "docker", available: true },
      policy: { images: ["*"], hostPorts: "1-2", allowRoot: false },
      images: [],
    }),
    onWelcome: () => undefined,
    onSync: () => undefined,
    onCommand: () => ANSWERS[commands++ % ANSWERS.length]?.(),
    async *openLogs({ workload }) {
      if (workload === "w") throw new GpunodeError("unknown_workload", "there is none");
      yield { stream: "stdout", data: Buffer.from([0xff, 0xc3]) };
    },
    onSessionEnd: () => undefined,
    log: {
      debug: () => undefined,
      info: () => undefined,
      warn: () => undefined,
      error: (fields, message) =>
        void errors.push(
          `${message}: ${JSON.stringify(fields, (_key, value) => (value instanceof Error ? value.stack : value))}`,
        ),
    },
  };
}

function carryOut(socket: WebSocket, move: Move): void {
  if (socket.readyState !== socket.OPEN) return;
  if ("text" in move) socket.send(move.text);
  else if ("binary" in move) socket.send(move.binary);
  else if ("ping" in move) socket.ping(move.ping);
  else if ("close" in move) socket.close(move.close);
  else socket.terminate();
}

async function byTheBook(coordinator: FakeSession, begin: Moves["begin"]): Promise<void> {
  if (begin === "nothing") return;
  coordinator.challenge();
  await coordinator.next("hello");
  if (begin === "challenge") return;
  coordinator.welcome();
  await coordinator.next("advertise");
  if (begin === "sync") coordinator.send({ type: "sync", workloads: [] });
}

export async function sessionGroup(): Promise<TargetGroup> {
  const fake = await FakeCoordinator.start();
  const address = coordinatorAddress(fake.url);
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const identity = loadIdentity(join(folder, "identity.pem"));
  const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const signal = new AbortController().signal;

  async function check({ begin, moves, events }: Moves): Promise<void> {
    const errors: string[] = [];
    const dialled = await dial({ address, timeoutMs: 10_000 }, signal);
    const coordinator = await fake.next();
    let revision = 0;
    // Each session introduces a new key, which a welcome may accept, leave out or get wrong.
    const rotation = new KeyRotation(identity, silent);
    void rotation.begin();
    await using session = new Session(dialled, doorsOf(identity, events, errors), {
      host: address.host,
      rotation,
      nextRevision: () => ++revision,
      onWelcome: () => undefined,
      onRead: () => undefined,
      onTelemetry: () => undefined,
      now: Date.now,
    });
    await byTheBook(coordinator, begin);
    for (const move of moves) carryOut(coordinator.socket, move);
    // A session that is still there answers a pong to what comes last: all before it has been worked on.
    const worked = Promise.withResolvers<void>();
    coordinator.socket.once("pong", () => worked.resolve()).once("close", () => worked.resolve());
    if (coordinator.socket.readyState === coordinator.socket.OPEN) coordinator.socket.ping("last");
    else if (coordinator.socket.readyState === coordinator.socket.CLOSED) worked.resolve();
    await worked.promise;
    session.close(CLOSE.goingAway, "enough");
    await session.ended;
    await coordinator.end();
    ensure(errors.length === 0, () => `an internal error: ${errors[0]}`);
    ensure(
      CLOSES.has(coordinator.closed?.code ?? 0) || moves.some((move) => "close" in move),
      `it closes with ${coordinator.closed?.code}`,
    );
    for (const frame of coordinator.frames) {
      const text = JSON.stringify(frame);
      const read = AgentFrame.safeParse(frame);
      ensure(read.success, () => `no frame of an agent: ${text.slice(0, 1000)}`);
      ensure(Buffer.byteLength(text) <= MAX_FRAME_BYTES, `${frame.type} has ${text.length} characters`);
    }
    fake.sessions[fake.sessions.length - 1] = undefined as unknown as FakeSession;
  }

  return {
    targets: [
      target<Moves>({
        name: "a session with a coordinator, agent's side",
        inputs: 50_000,
        make: conversation,
        check,
        counts: ({ moves }) => Math.max(1, moves.length),
      }),
    ],
    async [Symbol.asyncDispose]() {
      await fake[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
