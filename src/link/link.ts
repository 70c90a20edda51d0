import { setTimeout as sleep } from "node:timers/promises";
import { CLOSE, HANDSHAKE_TIMEOUT_MS } from "../protocol/limits.ts";
import { type CoordinatorAddress, coordinatorAddress, dial, proxyUrl } from "./dial.ts";
import { DialError } from "./dial-errors.ts";
import type { LinkCounts, LinkDoors, LinkStatus, ProgressReport, Sample } from "./needs.ts";
import { BACKOFF, type BackoffPolicy, nextDelayMs } from "./reconnect.ts";
import { KeyRotation, type RotationEnd } from "./rotation.ts";
import { Session } from "./session.ts";
import type { SessionEnd } from "./session-end.ts";

/** Where the coordinator is and how it is spoken to; the `[coordinator]` section of the configuration. */
export interface LinkOptions {
  url: string;
  /** Sent until this coordinator has once welcomed this key. */
  joinToken?: string;
  caFile?: string;
  certFile?: string;
  keyFile?: string;
  proxy?: string;
  /** Allow `ws://` to other machines. */
  insecure?: boolean;
  backoff?: Partial<BackoffPolicy>;
  /** For dialling and for the handshake, each; milliseconds. */
  handshakeTimeoutMs?: number;
  /** Events are sent again when nothing was acked for so long. */
  ackTimeoutMs?: number;
  /** The wall clock, milliseconds since the epoch. */
  now?: () => number;
  /** The clock that silence is measured by; the wall clock where absent. */
  steady?: () => number;
  /** In [0, 1). */
  random?: () => number;
}

/**
 * The link to one coordinator: keeps a session with it for as long as `run` is not aborted. What is offered while
 * there is no session is left out; events wait in their log.
 */
export class Link {
  readonly #options: LinkOptions;
  readonly #doors: LinkDoors;
  readonly #address: CoordinatorAddress;
  readonly #now: () => number;
  readonly #steady: () => number;
  readonly #random: () => number;
  readonly #backoff: BackoffPolicy;
  readonly #rotation: KeyRotation;
  /** Aborted when the next attempt shall not wait. */
  #hurry = new AbortController();
  #session: Session | undefined;
  #revision = 0;
  readonly #counts: LinkCounts = { sessions: 0, telemetrySent: 0, telemetrySkipped: 0 };
  #status: LinkStatus;

  /** Throws `invalid_spec` or `policy_denied` where the coordinator's address or the proxy's cannot be used. */
  constructor(options: LinkOptions, doors: LinkDoors) {
    const { url, insecure = false, proxy, now = Date.now, random = Math.random, backoff } = options;
    this.#address = coordinatorAddress(url, { insecure });
    if (proxy !== undefined) proxyUrl(proxy);
    this.#options = options;
    this.#doors = doors;
    this.#rotation = new KeyRotation(doors.identity, doors.log);
    this.#now = now;
    this.#steady = options.steady ?? now;
    this.#random = random;
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#status = { state: "connecting", url: this.#address.url.href, since: now() };
  }

  status(): LinkStatus {
    return { ...this.#status };
  }

  /** Over all sessions since the start. */
  counts(): LinkCounts {
    return { ...this.#counts };
  }

  offerTelemetry(sample: Sample): void {
    this.#session?.offerTelemetry(sample);
  }

  offerProgress(report: ProgressReport): void {
    this.#session?.offerProgress(report);
  }

  /** What `advertisement()` says may have changed. */
  advertiseChanged(): void {
    this.#session?.advertiseChanged();
  }

  /**
   * Takes a new key, which the coordinator has to agree to; a session that is up is ended for it. Settles when it has answered,
   * however long that takes, and is gone on with after a restart. Throws where the disk refuses.
   */
  rotateKey(): Promise<RotationEnd> {
    const end = this.#rotation.begin();
    this.#hurry.abort();
    this.#session?.close(CLOSE.goingAway, "the agent comes back with a new key");
    return end;
  }

  /** Keeps the link up until the signal aborts; then closes the session and resolves. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    let failures = 0;
    let isDown = false;
    while (!signal.aborted) {
      this.#become("connecting");
      const end = await this.#attempt(signal);
      if (signal.aborted) return;
      const { message, remedy, isRefused, isReplaced, retryAfterSeconds, welcomedForMs } = end;
      if (isReplaced) this.#status.replacedAt = this.#now();
      if (welcomedForMs > 0) isDown = false;
      failures = welcomedForMs >= this.#backoff.lastedMs ? 0 : failures + 1;
      const asked = retryAfterSeconds === undefined ? {} : { retryAfterSeconds };
      const delayMs = nextDelayMs({ failures, replaced: isReplaced, ...asked }, this.#random, this.#backoff);
      const fields = { coordinator: this.#status.url, retryInMs: Math.round(delayMs) };
      const what = welcomedForMs > 0 ? "the session with the coordinator ended" : "the coordinator cannot be reached";
      // Said once for each outage; what follows is the same again.
      const advice = remedy === undefined ? "" : `; ${remedy}`;
      if (!isDown || message !== this.#status.lastError) this.#doors.log.warn(fields, `${what}: ${message}${advice}`);
      isDown = true;
      this.#become(isRefused ? "refused" : "waiting", { lastError: message, retryAt: this.#now() + delayMs });
      const either = AbortSignal.any([signal, this.#hurry.signal]);
      await sleep(delayMs, undefined, { signal: either }).catch(() => undefined);
      this.#hurry = new AbortController();
    }
  }

  /** One session from dialling to its end. Never rejects. */
  async #attempt(signal: AbortSignal): Promise<SessionEnd> {
    const { handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS, ackTimeoutMs, joinToken } = this.#options;
    try {
      const dialled = await dial({ ...this.#options, address: this.#address, timeoutMs: handshakeTimeoutMs }, signal);
      const session = new Session(dialled, this.#doors, {
        host: this.#address.host,
        rotation: this.#rotation,
        handshakeTimeoutMs,
        ...(ackTimeoutMs !== undefined && { ackTimeoutMs }),
        ...(joinToken !== undefined && { joinToken }),
        nextRevision: () => {
          this.#revision += 1;
          return this.#revision;
        },
        onTelemetry: (isSent) => {
          this.#counts[isSent ? "telemetrySent" : "telemetrySkipped"] += 1;
        },
        onWelcome: (welcome) => {
          this.#counts.sessions += 1;
          this.#become("connected", { sessionId: welcome.sessionId, lastFrameAt: this.#steady() });
          this.#doors.log.info({ coordinator: this.#status.url, session: welcome.sessionId }, "connected");
          this.#doors.onWelcome(welcome);
        },
        onRead: () => {
          this.#status.lastFrameAt = this.#steady();
        },
        now: this.#now,
      });
      this.#session = session;
      const abort = () => session.close(CLOSE.goingAway, "the agent is leaving");
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
      try {
        return await session.ended;
      } finally {
        signal.removeEventListener("abort", abort);
        this.#session = undefined;
      }
    } catch (error) {
      const { message, retryAfterSeconds } = error instanceof DialError ? error : new DialError(String(error));
      const asked = retryAfterSeconds === undefined ? {} : { retryAfterSeconds };
      return { message, isRefused: false, isReplaced: false, welcomedForMs: 0, ...asked };
    }
  }

  /** The newest error stays visible until a session is welcome again. */
  #become(
    state: LinkStatus["state"],
    more: Partial<Pick<LinkStatus, "lastError" | "retryAt" | "sessionId" | "lastFrameAt">> = {},
  ): void {
    const { url, lastError, lastFrameAt, replacedAt } = this.#status;
    this.#status = {
      state,
      url,
      since: this.#now(),
      ...(lastFrameAt !== undefined && { lastFrameAt }),
      ...(replacedAt !== undefined && { replacedAt }),
      ...(lastError !== undefined && state !== "connected" && { lastError }),
      ...more,
    };
  }
}
