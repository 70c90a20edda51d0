import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import * as z from "zod";
import { BUG } from "../protocol/errors.ts";
import { CLOSE } from "../protocol/limits.ts";
import { describeIssues } from "../protocol/parse.ts";
import { Count, Instant, Quantity, WorkloadId } from "../protocol/scalars.ts";
import { Workload } from "../protocol/workload.ts";
import { ApiError } from "./api-error.ts";
import type { CoordinatorDatabase } from "./database.ts";
import { barredInWords } from "./handshake.ts";
import { type Access, readJson, requireAccess, sendJson, startStream, write } from "./http.ts";
import type { Log } from "./log.ts";
import { NODE_DISCONNECTED, SLOW_READER } from "./log-stream.ts";
import { type Schedule, unknownNode } from "./schedule.ts";
import { nodeView, workloadView } from "./views.ts";
import { OnPreempt } from "./workload-table.ts";

/** What the API is built on. */
export interface ApiDoors {
  database: CoordinatorDatabase;
  schedule: Schedule;
  /** Emits `change` when there may be new events. */
  changes: EventTarget;
  access: Access;
  /** Ends all that is streamed. */
  signal: AbortSignal;
  log: Log;
}

interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  /** The `:id` of the path. */
  id: string;
  query: URLSearchParams;
  doors: ApiDoors;
}

const Grace = Quantity.max(86_400).exactOptional();
const Submission = z.strictObject({
  ...Workload.omit({ id: true, generation: true }).shape,
  id: WorkloadId.exactOptional(),
  onPreempt: OnPreempt.exactOptional(),
});
const ReleaseBody = z.strictObject({ graceSeconds: Grace });
const PreemptBody = z.strictObject({ graceSeconds: Grace, reason: z.string().max(1000).exactOptional() });
const BarBody = z.strictObject({ reason: z.string().max(200).exactOptional() });
const TokenBody = z.strictObject({
  uses: z.int().min(1).max(100_000).default(1),
  expiresInSeconds: z.int().min(1).max(31_536_000).default(3600),
});
const EVENTS_PER_WORKLOAD = 1000;
const LIST_LIMIT = 1000;
const PAGE = 500;

/** The whole HTTP API: docs/coordinator.md has the same table for people. */
const ROUTES: { method: string; path: RegExp; answer: (call: Call) => void | Promise<void> }[] = [
  { method: "GET", path: /^\/nodes$/, answer: listNodes },
  { method: "GET", path: /^\/nodes\/([^/]+)$/, answer: getNode },
  { method: "GET", path: /^\/nodes\/([^/]+)\/telemetry$/, answer: getTelemetry },
  { method: "POST", path: /^\/nodes\/([^/]+)\/drain$/, answer: drain },
  { method: "POST", path: /^\/nodes\/([^/]+)\/resume$/, answer: resume },
  { method: "POST", path: /^\/nodes\/([^/]+)\/bar$/, answer: bar },
  { method: "POST", path: /^\/nodes\/([^/]+)\/unbar$/, answer: unbar },
  { method: "GET", path: /^\/workloads$/, answer: listWorkloads },
  { method: "POST", path: /^\/workloads$/, answer: submit },
  { method: "GET", path: /^\/workloads\/([^/]+)$/, answer: getWorkload },
  { method: "DELETE", path: /^\/workloads\/([^/]+)$/, answer: release },
  { method: "POST", path: /^\/workloads\/([^/]+)\/preempt$/, answer: preempt },
  { method: "GET", path: /^\/workloads\/([^/]+)\/logs$/, answer: logs },
  { method: "GET", path: /^\/events$/, answer: events },
  { method: "POST", path: /^\/tokens$/, answer: makeToken },
];

/** Answers one HTTP request. Never rejects: what goes wrong becomes `{error: {code, message}}`. */
export async function answerApi(request: IncomingMessage, response: ServerResponse, doors: ApiDoors): Promise<void> {
  try {
    requireAccess(request, doors.access);
    const url = addressOf(request);
    const path = url.pathname.startsWith("/api/v1/") ? url.pathname.slice("/api/v1".length) : undefined;
    const matching = path === undefined ? [] : ROUTES.filter((route) => route.path.test(path));
    const route = matching.find(({ method }) => method === request.method);
    if (path === undefined || route === undefined) {
      const others = matching.map(({ method }) => method).join(", ");
      throw new ApiError(
        "not_found",
        `there is no ${request.method} ${url.pathname}${others === "" ? "" : ` (there is ${others})`}`,
      );
    }
    const id = route.path.exec(path)?.[1] ?? "";
    await route.answer({ request, response, id: decode(id), query: url.searchParams, doors });
  } catch (error) {
    if (response.headersSent) return void response.destroy();
    const known =
      error instanceof ApiError ? error : new ApiError("internal", "something went wrong; the log says what");
    if (known !== error) doors.log.error({ err: error, url: request.url }, `a request to the API failed: ${BUG}`);
    // What was not read of the body is not waited for.
    if (!request.complete) response.setHeader("connection", "close");
    sendJson(response, known.status, { error: { code: known.code, message: known.message } });
  }
}

function addressOf(request: IncomingMessage): URL {
  const { url = "/" } = request;
  // Not relative to a base: "//" would be the beginning of a host then. Proxies send whole addresses.
  const address = url.startsWith("/") ? `http://coordinator${url}` : url;
  if (!URL.canParse(address)) throw new ApiError("bad_message", "the request's path cannot be read");
  return new URL(address);
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new ApiError("bad_message", `"${part}" in the path is not URL-encoded`);
  }
}

async function body<T>({ request }: Call, schema: z.ZodType<T>, code: "bad_message" | "invalid_spec"): Promise<T> {
  const parsed = schema.safeParse(await readJson(request));
  if (parsed.success) return parsed.data;
  throw new ApiError(code, describeIssues(parsed.error));
}

/** A query parameter held against its schema; undefined where it is absent. */
function parameter<T>({ query }: Call, name: string, schema: z.ZodType<T>): T | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const parsed = schema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ApiError("bad_message", `${name}: ${describeIssues(parsed.error)}`);
}

const Whole = z
  .string()
  .regex(/^\d{1,15}$/, "must be a whole number")
  .transform(Number)
  .pipe(Count);
const Flag = z.enum(["0", "1", "false", "true"]).transform((text) => text === "1" || text === "true");

// ------------------------------------------------------------- nodes

function listNodes({ response, doors }: Call): void {
  sendJson(response, 200, { nodes: doors.database.nodes().map((node) => nodeView(node, doors)) });
}

function getNode(call: Call): void {
  const { response, doors } = call;
  sendJson(response, 200, nodeView(nodeOf(call), doors));
}

function nodeOf({ id, doors }: Call) {
  const node = doors.database.node(id);
  if (node === undefined) throw unknownNode(id, doors.database);
  return node;
}

function getTelemetry(call: Call): void {
  const { id } = nodeOf(call);
  const session = call.doors.schedule.sessions.get(id);
  if (session === undefined) throw new ApiError("node_offline", `node ${id} is not connected`);
  if (session.telemetry === undefined) throw new ApiError("not_found", `node ${id} has sent no telemetry yet`);
  const { type: _type, ...telemetry } = session.telemetry;
  sendJson(call.response, 200, telemetry);
}

async function drain(call: Call): Promise<void> {
  const grace = await body(call, ReleaseBody, "bad_message");
  await call.doors.schedule.command(call.id, { type: "drain", ...grace });
  getNode(call);
}

async function resume(call: Call): Promise<void> {
  await call.doors.schedule.command(call.id, { type: "resume" });
  getNode(call);
}

/** Out at once. What runs there is the node's affair: it ends as each workload's `onDisconnect` says. */
async function bar(call: Call): Promise<void> {
  const { doors } = call;
  const { id } = nodeOf(call);
  const options = await body(call, BarBody, "bad_message");
  doors.database.bar(id, options);
  doors.schedule.sessions.get(id)?.close(CLOSE.refused, barredInWords(options.reason));
  doors.log.info({ node: id, ...options }, "node barred");
  getNode(call);
}

function unbar(call: Call): void {
  const { id } = nodeOf(call);
  call.doors.database.bar(id, false);
  call.doors.log.info({ node: id }, "node let in again");
  getNode(call);
}

/** The one answer that holds the token: it is kept as a hash. */
async function makeToken(call: Call): Promise<void> {
  const { uses, expiresInSeconds: forSeconds } = await body(call, TokenBody, "bad_message");
  const made = call.doors.database.tokens.make({ uses, forSeconds });
  call.doors.log.info({ uses, expiresAt: made.expiresAt }, "join token made");
  sendJson(call.response, 201, made);
}

// ------------------------------------------------------------- workloads

function listWorkloads({ response, doors }: Call): void {
  const records = doors.database.workloads.list(LIST_LIMIT);
  sendJson(response, 200, { workloads: records.map((record) => workloadView(record, doors)) });
}

async function submit(call: Call): Promise<void> {
  const submission = await body(call, Submission, "invalid_spec");
  const record = call.doors.schedule.submit(submission);
  sendJson(call.response, 201, workloadView(record, call.doors));
}

function workloadOf({ id, doors }: Call) {
  const record = doors.database.workloads.get(id);
  if (record === undefined) throw new ApiError("unknown_workload", `there is no workload ${id}`);
  return record;
}

function getWorkload(call: Call): void {
  const { response, doors, id } = call;
  const told = doors.database.eventsOf(id, EVENTS_PER_WORKLOAD).map(flatten);
  sendJson(response, 200, { ...workloadView(workloadOf(call), doors), events: told });
}

async function release(call: Call): Promise<void> {
  const { doors, id } = call;
  const grace = await body(call, ReleaseBody, "bad_message");
  sendJson(call.response, 202, workloadView(await doors.schedule.release(id, grace), doors));
}

async function preempt(call: Call): Promise<void> {
  const { doors, id } = call;
  const options = await body(call, PreemptBody, "bad_message");
  sendJson(call.response, 202, workloadView(await doors.schedule.preempt(id, options), doors));
}

/** Output of a workload: as it is (`text/plain`), or with `format=ndjson` a line for each piece and one that says why it ended. */
async function logs(call: Call): Promise<void> {
  const { response, doors, id } = call;
  const record = workloadOf(call);
  const follow = parameter(call, "follow", Flag) ?? false;
  const tail = parameter(call, "tail", Whole);
  const since = parameter(call, "since", Instant);
  const asLines = parameter(call, "format", z.enum(["text", "ndjson"])) === "ndjson";
  if (record.node === undefined) throw new ApiError("conflict", `workload ${id} is pending: no node has it`);
  const session = doors.schedule.sessions.get(record.node);
  if (session === undefined) throw new ApiError("node_offline", `node ${record.node} is not connected`);

  const answer = await session.logs({
    workload: id,
    follow,
    ...(tail !== undefined && { tail }),
    ...(since !== undefined && { since }),
  });
  if (!answer.ok) throw new ApiError(answer.why === "silent" ? "node_silent" : answer.error.code, answer.error.message);
  const { stream, stop } = answer;
  const leave = () => stop("stopped");
  response.once("close", leave);
  doors.signal.addEventListener("abort", leave, { once: true });
  try {
    startStream(response, asLines ? "application/x-ndjson" : "text/plain");
    for await (const { stream: name, at, data } of stream) {
      await write(response, asLines ? `${JSON.stringify({ stream: name, at, data })}\n` : data);
    }
    const reason = stream.endReason ?? "end";
    if (asLines) response.end(`${JSON.stringify({ end: reason })}\n`);
    // Plain text has no place for a reason: an answer that breaks off is how HTTP says that something is missing.
    else if (reason === SLOW_READER || reason === NODE_DISCONNECTED) response.destroy();
    else response.end();
  } finally {
    stop("stopped");
    response.off("close", leave);
    doors.signal.removeEventListener("abort", leave);
  }
}

// ------------------------------------------------------------- events

/** All events after a position, one JSON object a line; with `follow=1` it goes on with what comes. */
async function events(call: Call): Promise<void> {
  const { response, doors } = call;
  let position = parameter(call, "after", Whole) ?? 0;
  const follow = parameter(call, "follow", Flag) ?? false;
  startStream(response, "application/x-ndjson");
  const gone = new AbortController();
  const leave = () => gone.abort();
  response.once("close", leave);
  const signal = AbortSignal.any([gone.signal, doors.signal]);
  while (!signal.aborted) {
    const page = doors.database.eventsAfter(position, PAGE);
    for (const stored of page) {
      await write(response, `${JSON.stringify(flatten(stored))}\n`);
      position = stored.position;
    }
    if (page.length > 0) continue;
    if (!follow) break;
    // Nothing can slip in between: looking and listening happen without giving way.
    await once(doors.changes, "change", { signal }).catch(() => undefined);
  }
  gone.abort();
  response.off("close", leave);
  response.end();
}

function flatten({ position, node, event }: { position: number; node: string; event: Record<string, unknown> }) {
  return { position, node, ...event };
}
