import { PROTOCOL } from "../protocol/limits.ts";

export interface HttpAnswer {
  status: number;
  /** Where a redirect leads. */
  location?: string;
}

/** Why a coordinator could not be reached, in a sentence for the owner. */
export class DialError extends Error {
  override readonly name = "DialError";
  /** From the HTTP answer's `Retry-After`. */
  readonly retryAfterSeconds: number | undefined;
  /** Where it was answered by HTTP instead of a WebSocket. */
  readonly http: HttpAnswer | undefined;

  constructor(message: string, options: { cause?: unknown; retryAfterSeconds?: number; http?: HttpAnswer } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.http = options.http;
  }
}

const NO_TLS = "it does not speak TLS as expected: is it ws:// instead of wss://?";
const NO_HTTP = "what answers there is no HTTP server, so no coordinator: is the port right?";

/** `code` of Node's and OpenSSL's errors → what it means here and what to do. */
const BY_CODE: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there (connection refused): is the coordinator up, and the port right?",
  ECONNRESET: "the connection was reset: the other side, or something on the way, does not want it",
  EHOSTUNREACH: "the host cannot be reached (no route): is it up, and this machine on its network?",
  ENETUNREACH: "the network cannot be reached: is this machine online?",
  ENOTFOUND: "the host name is not known: is it spelt right?",
  EAI_AGAIN: "the host name cannot be looked up now (no DNS): is this machine online?",
  ETIMEDOUT: "the connection timed out: the host is off, or a firewall drops it",
  CERT_HAS_EXPIRED: "its certificate has expired: its operator has to renew it, unless this machine's clock is wrong",
  CERT_NOT_YET_VALID: "its certificate is not yet valid: is this machine's clock right?",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed: give its CA as coordinator.ca_file",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host name: dial a name it is for",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    "it wants a client certificate: coordinator.cert_file and coordinator.key_file",
  EPROTO: NO_TLS,
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
  HPE_INVALID_CONSTANT: NO_HTTP,
  HPE_INVALID_VERSION: NO_HTTP,
};

/** Puts what a socket, TLS or `ws` reported into words. A TLS socket tells of a certificate it has let pass by the code alone. */
export function dialError(error: unknown): DialError {
  if (error instanceof DialError) return error;
  const failure = innermost(error);
  const code = typeof failure === "string" ? failure : (failure as { code?: unknown } | null)?.code;
  const known = typeof code === "string" ? BY_CODE[code] : undefined;
  if (known !== undefined) return new DialError(known, { cause: error });
  const message = failure instanceof Error ? failure.message : String(failure);
  if (message.includes("subprotocol")) {
    return new DialError(`it does not speak ${PROTOCOL} (${message})`, { cause: error });
  }
  return new DialError(message === "" ? String(code ?? "unknown error") : message, { cause: error });
}

/** Node tries all addresses of a name and reports an aggregate; the first says as much as all. */
function innermost(error: unknown): unknown {
  return error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
}
