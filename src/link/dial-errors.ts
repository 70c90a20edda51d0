import { PROTOCOL } from "../protocol/limits.ts";

/** Why a coordinator could not be reached, in a sentence for the owner. */
export class DialError extends Error {
  override readonly name = "DialError";
  /** From the HTTP answer's `Retry-After`. */
  readonly retryAfterSeconds: number | undefined;

  constructor(message: string, options: { cause?: unknown; retryAfterSeconds?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** `code` of Node's and OpenSSL's errors → what it means here and what to do. */
const BY_CODE: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there (connection refused)",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "the host cannot be reached (no route)",
  ENETUNREACH: "the network cannot be reached",
  ENOTFOUND: "the host name is not known",
  EAI_AGAIN: "the host name cannot be looked up now (no DNS)",
  ETIMEDOUT: "the connection timed out",
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not yet valid: is this machine's clock right?",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed: give its CA as coordinator.ca_file",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "its certificate is signed by a CA that is not known: give it as coordinator.ca_file",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host name",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    "it wants a client certificate: coordinator.cert_file and coordinator.key_file",
  EPROTO: "it does not speak TLS as expected: is it ws:// instead of wss://?",
  ERR_SSL_WRONG_VERSION_NUMBER: "it does not speak TLS as expected: is it ws:// instead of wss://?",
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
