/** Version and bounds of the wire contract; `docs/protocol.md` explains each. */

/** WebSocket subprotocol and the first line of every signed challenge. */
export const PROTOCOL = "gpunode.v1";

/** A frame longer than this many UTF-8 bytes is refused with `bad_message`. */
export const MAX_FRAME_BYTES = 1024 * 1024;

/** A frame longer than this is not even read to its end: the socket closes with 1009. */
export const HARD_FRAME_BYTES = 8 * 1024 * 1024;

/**
 * Beyond its own log a node numbers on from no event later than this: JSON carries whole numbers up to 2^53, and some must be left for
 * what is yet to happen.
 */
export const MAX_RESUMED_EVENT = 2 ** 52;

/** Path the agent dials on the coordinator. */
export const AGENT_PATH = "/v1/agent";

/** The handshake (challenge, hello, welcome) must be through within this many milliseconds. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Most `progress` frames a workload sends in a second. */
export const PROGRESS_PER_SECOND = 2;

/** WebSocket close codes with a meaning of ours. */
export const CLOSE = {
  goingAway: 1001,
  badMessage: 4400,
  notAuthenticated: 4401,
  refused: 4403,
  noCommonVersion: 4406,
  handshakeTimeout: 4408,
  replaced: 4409,
} as const;
