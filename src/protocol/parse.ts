import type { z } from "zod";
import type { ErrorCode } from "./errors.ts";
import { whyNotJson } from "./json-text.ts";
import { MAX_FRAME_BYTES } from "./limits.ts";

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
  id?: string;
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
  const ref = typeof id === "string" && id.length > 0 && id.length <= 128 ? id : undefined;
  if (typeof type !== "string") return bad('the frame has no "type"', ref);
  return { ok: true, value: value as RawFrame };
}

/** Holds a frame (or a part of one) against its schema and says in one sentence what does not fit. */
export function check<T>(schema: z.ZodType<T>, value: unknown, what: string, ref?: string): Parsed<T> {
  const result = schema.safeParse(value);
  if (result.success) return { ok: true, value: result.data };
  return bad(`${what}: ${describeIssues(result.error)}`, ref);
}

/** The first three issues of a Zod error as "path: what is wrong", joined with "; ". */
export function describeIssues(error: z.ZodError): string {
  const issues = error.issues.slice(0, 3).map((issue) => {
    const path = issue.path.map(String).join(".");
    return path === "" ? issue.message : `${path}: ${issue.message}`;
  });
  const more = error.issues.length - issues.length;
  return issues.join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function bad(message: string, ref?: string): { ok: false; problem: FrameProblem } {
  return {
    ok: false,
    problem: ref === undefined ? { code: "bad_message", message } : { code: "bad_message", message, ref },
  };
}
