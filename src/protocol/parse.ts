import type * as z from "zod";
import type { ErrorCode } from "./errors.ts";
import { whyNotJson } from "./json-text.ts";
import { MAX_FRAME_BYTES } from "./limits.ts";
import { CommandId } from "./scalars.ts";

/** A frame that could not be used, in the words of an `error` or `reply` frame. */
export interface FrameProblem {
  code: Extract<ErrorCode, "bad_message" | "unsupported">;
  message: string;
  /** The frame's `id`, where it had a usable one. */
  ref?: string;
}

export type Parsed<T> = { ok: true; value: T } | { ok: false; problem: FrameProblem };

/** A JSON object with a `type`, before its schema is known. */
export interface RawFrame {
  type: string;
  /** Unread: a peer may write anything here. */
  id?: unknown;
  [key: string]: unknown;
}

/**
 * Reads one WebSocket text message as a JSON object with a `type`. Never throws: what is wrong is said in `problem`.
 */
export function parseFrame(text: string): Parsed<RawFrame> {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_FRAME_BYTES) {
    return bad(`the frame has ${bytes} bytes; at most ${MAX_FRAME_BYTES} are read`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return bad(`the frame is not JSON: ${whyNotJson(error)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return bad("the frame is not a JSON object");
  const { type, id } = value as { type?: unknown; id?: unknown };
  if (typeof type !== "string") return bad('the frame has no "type"', id);
  return { ok: true, value: value as RawFrame };
}

/** The frame's `id` where an answer can name it; undefined where it is none. */
export function refOf(id: unknown): string | undefined {
  return CommandId.safeParse(id).data;
}

/** Holds a frame (or a part of one) against its schema and says in one sentence what does not fit. `id` is the frame's own, unread. */
export function check<T>(schema: z.ZodType<T>, value: unknown, what: string, id?: unknown): Parsed<T> {
  const result = schema.safeParse(value);
  if (result.success) return { ok: true, value: result.data };
  return bad(`${what}: ${describeIssues(result.error)}`, id);
}

/** An issue quotes names that the peer chose, which may be as long as its frame: what is said of it stays within one. */
const ISSUE_MOST = 300;

/** The first three issues of a Zod error as "path: what is wrong", joined with "; ". */
export function describeIssues(error: z.ZodError): string {
  const issues = error.issues.slice(0, 3).map((issue) => {
    const path = issue.path.map(String).join(".");
    const text = path === "" ? issue.message : `${path}: ${issue.message}`;
    return text.length <= ISSUE_MOST ? text : `${text.slice(0, ISSUE_MOST).toWellFormed()}…`;
  });
  const more = error.issues.length - issues.length;
  return issues.join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function bad(message: string, id?: unknown): { ok: false; problem: FrameProblem } {
  const ref = refOf(id);
  return {
    ok: false,
    problem: ref === undefined ? { code: "bad_message", message } : { code: "bad_message", message, ref },
  };
}
