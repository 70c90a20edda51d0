/**
 * The closed set of codes a peer may act on (PROTOCOL, "Error codes"). Anything else that goes wrong is a
 * bug of ours and travels as `internal`.
 */
export const ERROR_CODES = [
  "bad_message",
  "unsupported",
  "stale_generation",
  "unknown_workload",
  "invalid_spec",
  "no_matching_gpu",
  "gpu_busy",
  "insufficient_memory",
  "insufficient_disk",
  "image_not_allowed",
  "driver_too_old",
  "policy_denied",
  "draining",
  "engine_unavailable",
  "pull_failed",
  "internal",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * An error whose cause lies outside the code and whose reader can do something about it. `message` says what
 * was wrong, with the value and the limit, and what to do; `details` carries the same numbers for programs.
 */
export class GpunodeError extends Error {
  override readonly name = "GpunodeError";
  readonly code: ErrorCode;
  readonly details: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, options: { details?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details;
  }
}

/** How a log line says that nobody did wrong but gpunode, and what to do about it. */
export const BUG = 'a bug: please report it with what "gpunode support-bundle" collects';
