import { type ErrorCode, GpunodeError } from "../protocol/errors.ts";

/**
 * The engine's errors in words a person understands, with a code the runner can act on.
 *
 * The Docker API gives most of them as a status (404, 409, 500) and a sentence; what is behind a 500 is told by its words
 * alone. This table is the only place that reads them. They were collected from dockerd 20.10 with containerd 1.6 and
 * from moby's and the NVIDIA toolkit's sources up to Docker 28; what it does not know is passed on as the engine said it.
 */
interface Trouble {
  when: RegExp;
  code: ErrorCode;
  /** Stable word for programs, in `details.reason`. */
  reason: string;
  says(match: RegExpExecArray): string;
}

const TROUBLES: readonly Trouble[] = [
  // ---- the engine itself
  {
    when: /daemon is shutting down|transport is closing|containerd.*(?:unavailable|connection refused|no such file)|context canceled|ttrpc: closed/i,
    code: "engine_unavailable",
    reason: "engine_unavailable",
    says: () => "the container engine is going down or coming up",
  },
  {
    when: /no space left on device|disk quota exceeded/i,
    code: "insufficient_disk",
    reason: "disk_full",
    says: () => "the disk of the container engine is full: free space where its data lies (docker system df shows it)",
  },
  // ---- pulls
  {
    when: /no matching manifest for (\S+)|image operating system "?(\w+)"? cannot be used/i,
    code: "invalid_spec",
    reason: "wrong_architecture",
    says: ([, wanted, os]) =>
      wanted === undefined
        ? `the image is for the operating system ${os}, this node is Linux`
        : `the image has no variant for ${wanted}, which this node is: push one`,
  },
  {
    when: /pull access denied/i,
    code: "pull_failed",
    reason: "no_such_image",
    says: () =>
      "the registry has no such image, or shows it only after a login: check the name, and give registryAuth if it is private",
  },
  {
    when: /authentication required|no basic auth credentials|unauthorized|incorrect username or password|denied: requested access|access forbidden|403 Forbidden/i,
    code: "pull_failed",
    reason: "needs_auth",
    says: () =>
      "the registry asks for a login, or refuses the one that was sent: give registryAuth with a username and password " +
      "or an identity token that may pull this image",
  },
  {
    when: /manifest(?: for \S+)? (?:not found|unknown)|name unknown|repository name not known|repository \S+ not found/i,
    code: "pull_failed",
    reason: "no_such_image",
    says: () => "the registry has no such image: check its name and tag",
  },
  {
    when: /invalid reference format|invalid repository name|invalid tag format|invalid checksum digest|must be lowercase/i,
    code: "invalid_spec",
    reason: "bad_image_name",
    says: () => "the image's name is not one: expected host/path:tag or host/path@sha256:…",
  },
  {
    when: /toomanyrequests|429 Too Many/i,
    code: "pull_failed",
    reason: "rate_limited",
    says: () => "the registry limits how often this node may pull: give registryAuth, or try again later",
  },
  {
    when: /x509:|tls:|server gave HTTP response to HTTPS client/i,
    code: "pull_failed",
    reason: "registry_tls",
    says: () =>
      "the registry's certificate is not trusted by the engine here: the node's owner can add its CA under /etc/docker/certs.d",
  },
  {
    when: /no such host|server misbehaving|connection refused|i\/o timeout|network is unreachable|no route to host|Client\.Timeout|TLS handshake timeout/i,
    code: "pull_failed",
    reason: "registry_unreachable",
    says: () => "the registry cannot be reached from this node",
  },
  {
    when: /unexpected EOF|connection reset by peer|filesystem layer verification failed|failed to register layer/i,
    code: "pull_failed",
    reason: "pull_broken_off",
    says: () => "a layer did not arrive whole, though the engine tried again",
  },
  // ---- GPUs
  {
    when: /could not select device driver "(\w*)"/i,
    code: "no_matching_gpu",
    reason: "no_gpu_support",
    says: () =>
      "the container engine cannot attach GPUs: the NVIDIA container toolkit is missing on this node. Install " +
      "nvidia-container-toolkit, run nvidia-ctk runtime configure --runtime=docker, and restart Docker",
  },
  {
    when: /nvidia-container-cli: device error: (.*?): unknown device|unresolvable CDI devices (\S+)/i,
    code: "no_matching_gpu",
    reason: "gpu_unknown_to_driver",
    says: ([, device, cdi]) =>
      `the driver does not know the GPU ${device ?? cdi} any more: it fell off the bus or MIG changed`,
  },
  {
    when: /nvidia-container-cli: requirement error: (.*)/i,
    code: "driver_too_old",
    reason: "driver_too_old",
    says: ([, demand]) => `the image asks for a newer driver (${shorten(demand ?? "")})`,
  },
  {
    when: /nvidia-container-cli|nvidia-container-runtime|nvidia-ctk|libnvidia-ml|NVML/i,
    code: "no_matching_gpu",
    reason: "gpu_hook_failed",
    says: () => "the NVIDIA container toolkit could not attach the GPU: see whether nvidia-smi works on this node",
  },
  // ---- create and start
  {
    when: /non-overlapping IPv[46] address pool|all predefined address pools/i,
    code: "internal",
    reason: "no_subnet",
    says: () =>
      "the container engine has no addresses left for one more network: remove unused ones (docker network prune), or widen " +
      "default-address-pools in its daemon.json",
  },
  {
    when: /port is already allocated|address already in use/i,
    code: "internal",
    reason: "port_taken",
    says: () => "a host port picked for it is taken by something else on this node",
  },
  {
    when: /executable file not found|exec: "?([^":]*)"?: stat .*no such file|exec: "?([^":]*)"?: no such file/i,
    code: "invalid_spec",
    reason: "command_not_found",
    says: () => "the image has no such command: check command and entrypoint",
  },
  {
    when: /(?:exec|stat|starting container process).*(?:permission denied|is a directory)/i,
    code: "invalid_spec",
    reason: "command_not_executable",
    says: () => "the command is not an executable file, or the container's user may not run it",
  },
  {
    when: /exec format error/i,
    code: "invalid_spec",
    reason: "wrong_architecture",
    says: () => "the command is built for another architecture than this node's, or is a script without a #! line",
  },
  {
    when: /chdir to cwd|mkdir .*(?:not a directory)|working director/i,
    code: "invalid_spec",
    reason: "bad_workdir",
    says: () => "workdir cannot be entered in this image",
  },
  {
    when: /unable to find (user|group) ([^:]*)|no matching entries in (passwd|group) file/i,
    code: "invalid_spec",
    reason: "no_such_user",
    says: () => "the image has no such user: use a number, or a name from its /etc/passwd",
  },
  {
    when: /no command specified/i,
    code: "invalid_spec",
    reason: "no_command",
    says: () => "neither the image nor the workload names a command",
  },
  {
    when: /unknown or invalid runtime name|unknown runtime/i,
    code: "unsupported",
    reason: "unknown_runtime",
    says: () => "the container engine does not know the runtime that this node's policy asks for",
  },
  {
    when: /no such image/i,
    code: "pull_failed",
    reason: "no_such_image",
    says: () => "the image is not on this node any more: somebody removed it after the pull",
  },
  {
    when: /minimum memory limit|range of cpus|minimum memory|invalid (?:mount|port|environment|signal)|invalid volume|cannot be resolved|invalid env/i,
    code: "invalid_spec",
    reason: "refused_by_engine",
    says: () => "the container engine refuses the specification",
  },
];

/** An engine that accepted a connection and then said nothing. */
export class EngineSilent extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs / 1000} s`);
  }
}

/** Makes a `GpunodeError` of whatever a call to the engine threw. `otherwise` is the code of what the table does not know. */
export function translate(
  error: unknown,
  doing: string,
  options: { socketPath: string; otherwise?: ErrorCode; hide?(words: string): string },
): Error {
  if (error instanceof GpunodeError) return error;
  if (!(error instanceof Error)) return new GpunodeError("internal", `could not ${doing}: ${String(error)}`);
  const { statusCode, code } = error as { statusCode?: number; code?: string };
  if (statusCode === undefined) {
    const words = error instanceof EngineSilent ? error.message : describeConnection(code, options.socketPath);
    // Not a word from the engine and not about the connection: a mistake of ours, to be seen as one.
    if (words === undefined) return error;
    return unavailable(`could not ${doing}: the container engine does not answer (${words})`, error);
  }
  const words = options.hide?.(wordsOf(error)) ?? wordsOf(error);
  // The cause is the answer as it came, with all that was to be hidden.
  const cause = options.hide === undefined ? error : undefined;
  if (statusCode === 503) return unavailable(`could not ${doing}: ${shorten(withoutQueries(words))}`, cause);
  return explain(words, doing, { ...options, cause });
}

/** The same for an engine's sentence that came inside a stream. */
export function explain(
  words: string,
  doing: string,
  options: { otherwise?: ErrorCode; cause?: unknown; hide?(words: string): string } = {},
): GpunodeError {
  // Hidden first: half a secret at the end of what is kept would be found no more.
  const harmless = withoutQueries(options.hide?.(words) ?? words);
  const engineWords = shorten(harmless);
  for (const trouble of TROUBLES) {
    const match = trouble.when.exec(harmless);
    if (match === null) continue;
    return new GpunodeError(trouble.code, `could not ${doing}: ${shorten(trouble.says(match))} (${engineWords})`, {
      details: { reason: trouble.reason, engine: engineWords },
      cause: options.cause,
    });
  }
  return new GpunodeError(options.otherwise ?? "internal", `could not ${doing}: ${engineWords}`, {
    details: { engine: engineWords },
    cause: options.cause,
  });
}

export function unavailable(message: string, cause?: unknown): GpunodeError {
  return new GpunodeError("engine_unavailable", message, { cause });
}

/** The status an engine's refusal came with; undefined where it was none. */
export function statusOf(error: unknown): number | undefined {
  const cause = error instanceof GpunodeError ? error.cause : error;
  return (cause as { statusCode?: number } | undefined)?.statusCode;
}

/** Words for errno codes of the socket; undefined where the code is none of them. */
function describeConnection(code: string | undefined, socketPath: string): string | undefined {
  switch (code) {
    case "ENOENT":
      return `there is no socket ${socketPath}: is Docker installed and running?`;
    case "ECONNREFUSED":
      return `nothing listens on ${socketPath}: is Docker running?`;
    case "EACCES":
    case "EPERM":
      return `this user may not use ${socketPath}: add it to the group docker`;
    case "ECONNRESET":
    case "EPIPE":
    case "ENOTSOCK":
    case "EAGAIN":
    case "ABORT_ERR":
    case "ERR_STREAM_PREMATURE_CLOSE":
      return `the connection to ${socketPath} broke: ${code}`;
    default:
      return code?.startsWith("HPE_") ? `${socketPath} does not speak HTTP` : undefined;
  }
}

/** The engine's own sentence, without what docker-modem puts around it. */
function wordsOf(error: Error): string {
  const { json } = error as { json?: unknown };
  const message = (json as { message?: unknown } | null | undefined)?.message;
  if (typeof message === "string") return message.trim();
  return error.message.replace(/^\(HTTP code \d+\) .*? - /, "").trim();
}

/** Addresses of layers carry signatures that let anybody fetch them. */
function withoutQueries(text: string): string {
  return text.replace(/(https?:\/\/[^\s"?]+)\?[^\s"]*/g, "$1?…");
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= 500 ? line : `${line.slice(0, 500)}…`;
}
