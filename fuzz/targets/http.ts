import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type NetConnectOpts } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startCoordinator } from "../../src/coordinator/server.ts";
import { describeHistory, HISTORY_HOURS_MAX } from "../../src/local/history.ts";
import { type LocalActions, startLocalApi } from "../../src/local/server.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { FIGURES } from "../../src/telemetry/history.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileText, hostileValue, mutated, mutatedText } from "../hostile.ts";
import { ensure, type TargetGroup, target } from "../target.ts";

/** Bytes of one connection, latin1. */
type Request = string;

const PATHS = {
  local: [
    "/v1/status",
    "/v1/workloads",
    "/v1/workloads/w/logs?tail=3",
    "/v1/usage?sinceMs=1",
    "/v1/history?hours=6",
    "/v1/drain?graceSeconds=5&maintenance",
    "/v1/reclaim?gpu=0&forMs=9",
    "/v1/resume?gpu=0",
    "/v1/sampling/pause",
    "//",
    "/%",
    "/v1/workloads/%zz/logs",
  ],
  coordinator: [
    "/api/v1/nodes",
    "/api/v1/nodes/a/telemetry",
    "/api/v1/nodes/a/drain",
    "/api/v1/workloads",
    "/api/v1/workloads/w",
    "/api/v1/workloads/w/logs?follow=1&tail=2",
    "/api/v1/workloads/w/preempt",
    "/api/v1/events?after=0",
    "//",
    "/api/v1/workloads/%zz",
    "/v1/agent",
  ],
};

function request(draw: Draw, paths: readonly string[], host: string): Request {
  const method = draw.of(["GET", "POST", "DELETE", "GET", "POST", "PUT", "OPTIONS", "HEAD", "CONNECT", "PRI"]);
  const path = draw.any(
    () => draw.of(paths),
    () => mutatedText(draw, draw.of(paths), ["%", "?", "&", "=", "%00", "//", "/../", "#", "=99999999999999999999"]),
  );
  const body = draw.any(
    () => "",
    () => JSON.stringify(valid(draw, Workload)),
    () => JSON.stringify(mutated(draw, { id: "w", image: "x", graceSeconds: 5, gpus: { count: 1 } })),
    () => JSON.stringify(hostileValue(draw)) ?? "",
    () => hostileText(draw),
  );
  const bytes = Buffer.from(body).toString("latin1");
  const lines = [
    `${method} ${path.slice(0, 4000)} HTTP/1.1`,
    ...(draw.once(20) ? [] : [`Host: ${draw.once(20) ? hostileText(draw).slice(0, 2000) : host}`]),
    `Content-Length: ${draw.once(20) ? draw.below(100) : bytes.length}`,
    "Content-Type: application/json",
    ...(draw.once(8)
      ? [
          `${draw.of(["Origin", "Authorization", "Transfer-Encoding", "Upgrade", "Connection", "Expect"])}: ${hostileText(draw).slice(0, 2000)}`,
        ]
      : []),
    "Connection: close",
  ];
  const whole = `${lines.join("\r\n")}\r\n\r\n${bytes}`;
  return draw.once(6) ? mutatedText(draw, whole, ["\r\n", "\r\n\r\n", " HTTP/1.1", ": "]) : whole;
}

/** All that is answered to `sent`, until the other side hangs up. A request that is not whole is ended by us. */
async function exchange(to: NetConnectOpts, sent: Request): Promise<string> {
  const socket = connect(to);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk)).on("error", () => undefined);
  const patience = setTimeout(() => socket.destroy(), 10_000);
  // Half closed: who waits for more of the request knows that none comes.
  socket.end(Buffer.from(sent, "latin1"));
  await once(socket, "close").catch(() => undefined);
  clearTimeout(patience);
  return Buffer.concat(chunks).toString("utf8");
}

function wellAnswered(answer: string): void {
  // Nothing is what a request that never was whole gets.
  if (answer === "") return;
  ensure(/^HTTP\/1\.1 [1-5]\d\d /.test(answer), () => `no HTTP: ${answer.slice(0, 200)}`);
  ensure(!/^HTTP\/1\.1 5(?!03|04)/.test(answer), () => `a failure of ours: ${answer.slice(0, 500)}`);
  const [head = "", ...rest] = answer.split("\r\n\r\n");
  const length = /^content-length: (\d+)/im.exec(head)?.[1];
  // What follows an answer is the next one: a request that breaks off behind its head gets both.
  const body = Buffer.from(rest.join("\r\n\r\n")).subarray(0, Number(length));
  if (/^content-type: application\/json/im.test(head) && body.length > 0) JSON.parse(body.toString());
}

const actions: LocalActions = {
  drain: () => ({ holds: [] }),
  reclaim: ({ gpus }) => {
    if (gpus?.includes("0") !== true) throw new GpunodeError("no_matching_gpu", `no such GPU: ${gpus}`);
    return { holds: [] };
  },
  resume: () => ({ holds: [] }),
  rotateKey: () => Promise.reject(new GpunodeError("engine_unavailable", "nobody answers")),
  pauseSampling: async () => undefined,
  resumeSampling: async () => undefined,
  usage: () => ({ node: { id: "n", publicKey: "", replaces: [] }, records: [{ kind: "usage" }] }),
  history(hours) {
    ensure(hours >= 1 && hours <= HISTORY_HOURS_MAX, `${hours} hours were let through`);
    const nothing = { buckets: new Map(), spans: [], marks: [], figures: FIGURES };
    return describeHistory({ sinceMs: 0, nowMs: hours * 3_600_000, stepMs: 60_000, ...nothing });
  },
  async *logs(id) {
    if (id !== "w") throw new GpunodeError("unknown_workload", "there is none");
    yield { stream: "stdout", data: Buffer.from([0xff, 0x41]) };
  },
};

export async function httpGroup(): Promise<TargetGroup> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const errors: string[] = [];
  const note = (fields: object, message: string) =>
    void errors.push(`${message}: ${String((fields as { err?: Error }).err?.stack)}`);
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: note };
  const socketPath = join(folder, "run/gpunode.sock");
  const local = await startLocalApi({
    socketPath,
    snapshot: () => ({ workloads: [] }) as unknown as Snapshot,
    actions,
    log,
  });
  const coordinator = await startCoordinator({
    listen: { host: "127.0.0.1", port: 0 },
    stateDir: join(folder, "c"),
    open: true,
    log,
  });
  const { port, host } = new URL(coordinator.apiUrl);

  const asked = async (to: NetConnectOpts, sent: Request) => {
    wellAnswered(await exchange(to, sent));
    const [error] = errors.splice(0);
    ensure(error === undefined, () => `logged as an error of ours: ${error}`);
  };
  return {
    targets: [
      target<Request>({
        name: "requests to the local API",
        inputs: 15_000,
        make: (draw) => request(draw, PATHS.local, "gpunode"),
        check: (sent) => asked({ path: socketPath }, sent),
      }),
      target<Request>({
        name: "requests to the coordinator's API",
        inputs: 15_000,
        // Those that follow what is yet to come have no end of their own.
        make: (draw) => request(draw, PATHS.coordinator, host).replaceAll(/follow=(1|true)/g, "follow=0"),
        check: (sent) => asked({ port: Number(port), host: "127.0.0.1" }, sent),
      }),
    ],
    async [Symbol.asyncDispose]() {
      await local[Symbol.asyncDispose]();
      await coordinator.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
