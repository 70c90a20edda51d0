import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";
import type * as z from "zod";
import { readEvents } from "../../src/coordinator/incoming-events.ts";
import { startCoordinator } from "../../src/coordinator/server.ts";
import { Advertise, AgentFrame, Events, Hello, Reply, Telemetry } from "../../src/protocol/agent-frames.ts";
import { CoordinatorFrame } from "../../src/protocol/coordinator-frames.ts";
import { helloBytes } from "../../src/protocol/identity.ts";
import { CLOSE } from "../../src/protocol/limits.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileValue, mutated } from "../hostile.ts";
import { type Key, newKey } from "../keys.ts";
import { ensure, type TargetGroup, target } from "../target.ts";
import { frameText } from "./frames.ts";

/** What an agent does to a coordinator, in order. */
interface Moves {
  begin: "nothing" | "hello" | "advertise";
  /** Of a hello that is changed before it is sent, and then mostly signed wrongly. */
  hello: unknown;
  frames: (string | Buffer)[];
}

const CLOSES: ReadonlySet<number> = new Set([1000, 1002, 1005, 1006, 1007, 1009, ...Object.values(CLOSE)]);

function conversation(draw: Draw): Moves {
  const schemas = draw.any<readonly z.ZodType[]>(
    () => AgentFrame.options,
    () => AgentFrame.options,
    () => [Advertise, Telemetry, Events, Reply],
  );
  const numbered = () => {
    let seq = 0;
    const { events } = valid(draw, Events) as z.infer<typeof Events>;
    return JSON.stringify({ type: "events", events: events.map((event) => ({ ...event, seq: ++seq })) });
  };
  return {
    begin: draw.of(["nothing", "hello", "advertise", "advertise"]),
    hello: draw.once(5) ? mutated(draw, valid(draw, Hello)) : undefined,
    frames: draw.list(40, () =>
      draw.any<string | Buffer>(
        () => frameText(draw, schemas),
        () => frameText(draw, schemas),
        () => frameText(draw, schemas),
        numbered,
        () => (draw.once(10) ? draw.bytes(20) : frameText(draw, schemas)),
      ),
    ),
  };
}

interface Peer {
  socket: WebSocket;
  frames: unknown[];
  /** The next frame that comes; undefined where the socket closes first. */
  next(): Promise<unknown>;
  closed: Promise<number>;
}

function dialled(url: string): Peer {
  const socket = new WebSocket(`${url}/v1/agent`, ["gpunode.v1"], { perMessageDeflate: false });
  const frames: unknown[] = [];
  let taken = 0;
  let wake = () => {};
  const closed = Promise.withResolvers<number>();
  let isClosed = false;
  socket.on("error", () => undefined);
  socket.on("message", (data) => {
    frames.push(JSON.parse(String(data)));
    wake();
  });
  socket.on("close", (code) => {
    isClosed = true;
    closed.resolve(code);
    wake();
  });
  return {
    socket,
    frames,
    closed: closed.promise,
    async next() {
      while (taken >= frames.length && !isClosed) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return frames[taken++];
    },
  };
}

/** A hello that the key's owner signs for this challenge. */
function helloOf(key: Key, challenge: unknown, host: string): object {
  const { nonce } = challenge as { nonce: string };
  return {
    type: "hello",
    node: { id: key.id, publicKey: key.publicKey, name: "n", labels: {}, bootId: "b", agentVersion: "0" },
    signature: key.sign(helloBytes(host, nonce, key.id)),
    events: { oldest: 0, newest: 0 },
    workloads: [],
  };
}

const ADVERTISE = {
  ...{
    type: "advertise",
    revision: 1,
    gpus: [],
    host: { architecture: "amd64", cpus: 1, memoryMiB: 1 },
    engine: { kind: "docker", available: true },
  },
  ...{ policy: { images: ["*"], hostPorts: "1-2", allowRoot: true }, images: [] },
};

export async function coordinatorGroup(): Promise<TargetGroup> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const errors: string[] = [];
  const note = (fields: object, message: string) =>
    void errors.push(`${message}: ${String((fields as { err?: Error }).err?.stack)}`);
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: note };
  const coordinator = await startCoordinator({
    listen: { host: "127.0.0.1", port: 0 },
    stateDir: folder,
    open: true,
    log,
  });
  const { host } = new URL(coordinator.apiUrl);
  await fetch(`${coordinator.apiUrl}/api/v1/workloads`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: "w", image: "x" }),
  });
  const keys = Array.from({ length: 20 }, newKey);
  let met = 0;

  async function check({ begin, hello, frames }: Moves): Promise<void> {
    const key = keys[met++ % keys.length] as Key;
    const peer = dialled(coordinator.url);
    const challenge = await peer.next();
    if (begin !== "nothing") {
      peer.socket.send(JSON.stringify(hello ?? helloOf(key, challenge, host)));
      await peer.next();
      if (begin === "advertise" && peer.socket.readyState === peer.socket.OPEN) {
        peer.socket.send(JSON.stringify(ADVERTISE));
        await peer.next();
      }
    }
    for (const frame of frames) if (peer.socket.readyState === peer.socket.OPEN) peer.socket.send(frame);
    const worked = new Promise((resolve) => peer.socket.once("pong", resolve));
    if (peer.socket.readyState === peer.socket.OPEN) peer.socket.ping();
    await Promise.race([worked, peer.closed]);
    peer.socket.close();
    const code = await peer.closed;
    const [error] = errors.splice(0);
    ensure(error === undefined, () => `logged as an error of ours: ${error}`);
    ensure(CLOSES.has(code), `it closes with ${code}`);
    for (const frame of peer.frames)
      ensure(
        CoordinatorFrame.safeParse(frame).success,
        () => `no frame of a coordinator: ${JSON.stringify(frame).slice(0, 1000)}`,
      );
    for (const path of ["nodes", "workloads/w", ...(met % 50 === 0 ? ["events"] : [])]) {
      const answer = await fetch(`${coordinator.apiUrl}/api/v1/${path}`);
      await answer.text();
      ensure(answer.ok, `after that, ${path} is answered with ${answer.status}`);
    }
  }

  return {
    targets: [
      target<Moves>({
        name: "a session with an agent, coordinator's side",
        inputs: 30_000,
        make: conversation,
        check,
        counts: ({ frames }) => Math.max(1, frames.length),
      }),
      target<unknown>({
        name: "events of an agent, taken up to the first that cannot be",
        inputs: 30_000,
        make: (draw) =>
          draw.any<unknown>(
            () => (valid(draw, Events) as { events: unknown }).events,
            () => mutated(draw, (valid(draw, Events) as { events: unknown }).events),
            () => hostileValue(draw),
          ),
        check(value) {
          const { events, problem } = readEvents(value);
          ensure(
            problem !== undefined || events.length === (value as unknown[]).length,
            "events are left out and nothing is said",
          );
          for (const { seq, kind } of events)
            ensure(Number.isSafeInteger(seq) && seq >= 1 && typeof kind === "string", "an event without a place");
        },
      }),
    ],
    async [Symbol.asyncDispose]() {
      await coordinator.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
