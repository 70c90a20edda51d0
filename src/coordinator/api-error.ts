import type { ErrorCode } from "../protocol/errors.ts";

/** What only the HTTP API says; everything a node says keeps the protocol's code. */
export type ApiCode =
  | ErrorCode
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "unknown_node"
  | "conflict"
  | "too_large"
  | "wrong_host"
  | "node_offline"
  | "node_silent";

const STATUS: Partial<Record<ApiCode, number>> = {
  bad_message: 400,
  invalid_spec: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  unknown_node: 404,
  unknown_workload: 404,
  too_large: 413,
  wrong_host: 421,
  internal: 500,
  node_offline: 503,
  node_silent: 504,
};

/** An answer other than success, as `{error: {code, message}}`. A code without a row of its own is a 409: the state of things forbids it. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: ApiCode;

  constructor(code: ApiCode, message: string) {
    super(message);
    this.code = code;
  }

  get status(): number {
    return STATUS[this.code] ?? 409;
  }
}
