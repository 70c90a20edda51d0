import type { Hold } from "../protocol/agent-frames.ts";
import type { EventBody, PreemptionCause } from "../protocol/event.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { PreemptWhy } from "../workload/preempt.ts";
import { pendingNotice, type WorkloadRecord } from "../workload/record.ts";
import { isTerminal } from "../workload/state.ts";
import type { Claim, ClaimSource } from "./claim.ts";
import { boardsUnder, type Effect, effectOf, type KnownClaim } from "./effect.ts";
import { heldNow, nodeEvents, type Shared } from "./holds.ts";

export interface RegisterDoors {
  records(): readonly WorkloadRecord[];
  /** Both throw where the disk refuses. */
  preempt(ids: readonly string[], why: PreemptWhy): number;
  withdraw(ids: readonly string[], message: string): number;
  /** All GPUs, whoever holds them. */
  boards(): readonly Gpu[];
  /** Tells events where the disk takes them. */
  tell(events: EventBody[]): void;
  /** What is kept from being lent has changed. */
  changed(): void;
  /** The wall clock, for what is told; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
  log: {
    info(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
}

/** What the disk refused is tried again so often. */
const RETRY_MS = 2_000;

/**
 * Who wants which GPUs back, and what follows from it for the work on them.
 *
 * Each source tells the complete set of its claims; from all sets together follows, for each workload, whether it ends now, in time for the
 * earliest deadline, is warned, or goes on. So the order in which sources speak makes no difference, two of them make one notice, and
 * a claim that is gone takes back the notice that nobody else would have given.
 */
export class Register implements Disposable {
  readonly #doors: RegisterDoors;
  readonly #claims = new Map<ClaimSource, readonly KnownClaim[]>();
  #shared: Shared = { node: [], gpus: new Map() };
  #retry: NodeJS.Timeout | undefined;

  constructor(doors: RegisterDoors) {
    this.#doors = doors;
  }

  /** The complete set of a source's claims. Never throws. */
  raise(source: ClaimSource, claims: readonly Claim[]): void {
    const before = this.#claims.get(source) ?? [];
    const since = (claim: Claim) =>
      claim.since ??
      before.find((known) => sameScope(known, claim))?.since ??
      new Date(this.#doors.now()).toISOString();
    this.#claims.set(
      source,
      claims.map((claim) => ({ ...claim, cause: source, since: since(claim) })),
    );
    this.#tellHolds();
    this.#settle();
    this.#doors.changed();
  }

  /** Who keeps what from being lent, newest last. */
  holds(): Hold[] {
    const { now, steady } = this.#doors;
    return this.#all().map(({ cause, message, gpus, since, untilAt }) => {
      const until = untilAt === undefined ? undefined : toTheSecond(now() + untilAt - steady());
      return {
        cause,
        message,
        since,
        ...(gpus !== undefined && { gpus: [...gpus] }),
        ...(until !== undefined && { until }),
      };
    });
  }

  /** Why the whole node takes nothing new, and which boards are kept from being lent. */
  held(): { node?: string; gpus: ReadonlyMap<string, string> } {
    const claims = this.#all();
    const node = claims.find(({ gpus }) => gpus === undefined)?.message;
    const gpus = new Map(claims.flatMap((claim) => (claim.gpus ?? []).map((uuid) => [uuid, claim.message] as const)));
    return { gpus, ...(node !== undefined && { node }) };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#retry);
  }

  #all(): KnownClaim[] {
    return [...this.#claims.values()].flat();
  }

  #tellHolds(): void {
    const next = heldNow(this.#all());
    const events = nodeEvents(this.#shared, next);
    this.#shared = next;
    for (const { state, reason, message, gpus } of events) {
      const what = gpus === undefined ? "the node" : `${gpus.length === 1 ? "a GPU" : `${gpus.length} GPUs`}`;
      const word = state === "draining" ? `kept from being lent: ${message}` : "lent again";
      this.#doors.log.info({ cause: reason, ...(gpus !== undefined && { gpus }) }, `${what} is ${word}`);
    }
    if (events.length > 0) this.#doors.tell(events);
  }

  /** Brings the work on this node to what the claims say. */
  #settle(): void {
    clearTimeout(this.#retry);
    try {
      const live = this.#doors.records().filter(({ state }) => !isTerminal(state));
      const claims = this.#all();
      const effects = live.map((record) => ({
        record,
        effect: effectOf(claims, boardsUnder(record.gpus, this.#doors.boards())),
      }));
      this.#withdraw(effects);
      this.#preempt(effects);
    } catch (error) {
      this.#doors.log.error(
        { err: error },
        "GPUs could not be taken back, as the state could not be written; trying again: make room on the disk of state_dir",
      );
      this.#retry = setTimeout(() => this.#settle(), RETRY_MS);
      this.#retry.unref();
    }
  }

  /** Notices that nobody would give any more, or not for so early. */
  #withdraw(effects: readonly { record: WorkloadRecord; effect: Effect }[]): void {
    const gone = effects.filter(({ record, effect }) => {
      const notice = pendingNotice(record);
      // After a restart each source tells its claims anew; until it has, its notices stand.
      if (notice === undefined || !this.#hasSpoken(notice.cause)) return false;
      if (effect.work === "leave") return true;
      return effect.work !== "stop" && isEarlier(notice.deadlineAt, effect.deadlineAt);
    });
    const ids = gone.map(({ record }) => record.id);
    if (ids.length > 0) this.#doors.withdraw(ids, "the reason for the notice has passed");
  }

  #preempt(effects: readonly { record: WorkloadRecord; effect: Effect }[]): void {
    const hit = effects.flatMap(({ record, effect }) => (effect.work === "leave" ? [] : [{ record, effect }]));
    // One notice for all who are told the same.
    const groups = Map.groupBy(hit, ({ effect }) => JSON.stringify(effect));
    for (const group of groups.values()) {
      const [first] = group;
      if (first === undefined) continue;
      const { work, cause, message, deadlineAt } = first.effect;
      const ids = group.map(({ record }) => record.id);
      const begin = { stop: "now", stop_in_time: "late", warn: "never" } as const;
      this.#doors.preempt(ids, {
        cause,
        message,
        begin: begin[work],
        ...(deadlineAt !== undefined && { deadlineAt }),
      });
    }
  }

  #hasSpoken(cause: PreemptionCause): boolean {
    return this.#claims.has(cause as ClaimSource);
  }
}

/** The last year RFC 3339 has room for. */
const LATEST_MS = Date.UTC(9999, 11, 31);

/** RFC 3339; undefined for what lies so far ahead that nobody will see it. */
function instant(ms: number): string | undefined {
  return ms >= 0 && ms <= LATEST_MS ? new Date(ms).toISOString() : undefined;
}

/** Two clocks are read anew at each look: any finer, the same moment would be told as another each time. */
function toTheSecond(ms: number): string | undefined {
  return instant(Math.round(ms / 1000) * 1000);
}

function sameScope(a: Claim, b: Claim): boolean {
  return JSON.stringify(a.gpus) === JSON.stringify(b.gpus);
}

/** A second is no difference: wall-clock deadlines are converted at each look. */
function isEarlier(a: number | undefined, b: number | undefined): boolean {
  return (a ?? Number.POSITIVE_INFINITY) < (b ?? Number.POSITIVE_INFINITY) - 1000;
}
