import { CLOSE } from "../protocol/limits.ts";

/** How a session, or the attempt at one, ended. */
export interface SessionEnd {
  /** For the owner: a sentence without a full stop. */
  message: string;
  /** The coordinator said no; it is asked again, later. */
  isRefused: boolean;
  /** A newer session with the same key took its place. */
  isReplaced: boolean;
  /** What the owner can do about it, where that is not in the message. */
  remedy?: string;
  retryAfterSeconds?: number;
  /** How long it was welcome; 0 where it never was. */
  welcomedForMs: number;
}

/** Close codes → what they mean for the owner. */
const CLOSE_MEANINGS: Readonly<Record<number, string>> = {
  1000: "the coordinator closed the connection",
  1001: "the coordinator is going away",
  1006: "the connection broke off",
  1009: "a frame was too large to be read",
  1011: "the coordinator had an internal error",
  1012: "the coordinator restarts",
  1013: "the coordinator is overloaded",
  [CLOSE.badMessage]: "the coordinator could not use our frames",
  [CLOSE.notAuthenticated]: "the coordinator does not accept this node's signature",
  [CLOSE.refused]: "the coordinator refuses this node",
  [CLOSE.noCommonVersion]: "the coordinator speaks no version of the protocol that we do",
  [CLOSE.handshakeTimeout]: "the handshake took too long",
  [CLOSE.replaced]:
    "another session with this node's key took its place: is a second gpunode running with a copy of its state?",
};

/** Where the coordinator knows neither key nor token. */
export const REFUSED_REMEDY = '"gpunode enroll" gives this node another join token, or another coordinator';
/** Close codes → what the owner can do. */
const REMEDIES: Readonly<Record<number, string>> = {
  [CLOSE.refused]: REFUSED_REMEDY,
  [CLOSE.noCommonVersion]: "upgrade the older of the two",
};

const REFUSALS: ReadonlySet<number> = new Set([CLOSE.notAuthenticated, CLOSE.refused, CLOSE.noCommonVersion]);

/** What a close by the other side means. `reason` is the coordinator's own word. */
export function endOfClose(code: number, reason: string): Omit<SessionEnd, "welcomedForMs"> {
  const meaning = CLOSE_MEANINGS[code] ?? `the connection was closed with code ${code}`;
  const remedy = REMEDIES[code];
  return {
    message: reason === "" ? meaning : `${meaning} (${printable(reason)})`,
    isRefused: REFUSALS.has(code),
    isReplaced: code === CLOSE.replaced,
    ...(remedy !== undefined && { remedy }),
  };
}

/** A coordinator's words end up in terminals and logs: no control characters, no novels. */
export function printable(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
  return clean.length > 500 ? `${clean.slice(0, 500).toWellFormed()}…` : clean;
}
