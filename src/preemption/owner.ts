import * as z from "zod";
import type { Claim, Raise } from "./claim.ts";

/** Where the owner's word is remembered over restarts and reboots. */
export interface OwnerMemory {
  get(): string | undefined;
  /** Throws where the disk refuses: the word is not given then. */
  set(text: string | undefined): void;
}

/** `maintenance`: draining, and with the last workload gone the GPUs are let go of, so that their driver can be changed. */
const Drain = z.object({
  maintenance: z.boolean(),
  since: z.iso.datetime(),
  deadlineAt: z.number().exactOptional(),
});

const Reclaim = z.object({
  /** Whole boards; absent: all of the machine. */
  gpus: z.array(z.string()).min(1).exactOptional(),
  since: z.iso.datetime(),
  /** By the steady clock, milliseconds; absent: until it is lifted. */
  untilAt: z.number().exactOptional(),
  deadlineAt: z.number().exactOptional(),
});
type Reclaim = z.infer<typeof Reclaim>;

const Word = z.object({ drain: Drain.exactOptional(), reclaims: z.array(Reclaim) });
type Word = z.infer<typeof Word>;

export interface OwnerDoors {
  memory: OwnerMemory;
  raise: Raise;
  /** The wall clock. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
}

/** Time for those who have to leave; what each workload asked for, within the provider's limit, where absent. */
interface Grace {
  graceSeconds?: number;
}

/** `setTimeout` takes no more than a signed 32-bit number of milliseconds. */
const TIMER_MOST_MS = 2 ** 31 - 1;

/**
 * The owner's own word: `drain` (nothing is lent until `resume`) and `reclaim` (some GPUs or all of the machine, for a while or until
 * `resume`). Kept over restarts and reboots; a reclaim that has an end is lifted by itself.
 */
export interface Owner extends Disposable {
  /** Throws where the disk refuses. */
  drain(options: Grace & { maintenance?: boolean }): void;
  /** The same GPUs again: the new end counts. Throws where the disk refuses. */
  reclaim(options: Grace & { gpus?: readonly string[]; forMs?: number }): void;
  /** Lifts everything; with `gpus` only what was reclaimed of these. Throws where the disk refuses. */
  resume(options?: { gpus?: readonly string[] }): void;
  readonly isForMaintenance: boolean;
}

/** Takes up what was remembered, and raises it at once. */
export function createOwner({ memory, raise, now, steady }: OwnerDoors): Owner {
  let word = remembered(memory.get());
  let timer: NodeJS.Timeout | undefined;

  const schedule = () => {
    clearTimeout(timer);
    const next = Math.min(...word.reclaims.map(({ untilAt }) => untilAt ?? Number.POSITIVE_INFINITY));
    if (next === Number.POSITIVE_INFINITY) return;
    timer = setTimeout(expire, Math.min(Math.max(0, next - steady()), TIMER_MOST_MS));
    timer.unref();
  };
  const tell = () => {
    raise(claimsOf(word));
    schedule();
  };
  const become = (next: Word) => {
    memory.set(next.drain === undefined && next.reclaims.length === 0 ? undefined : JSON.stringify(next));
    word = next;
    tell();
  };
  /** What has come to its end is lifted, also where the disk does not take that: it says so again at the next start. */
  const expire = () => {
    const reclaims = word.reclaims.filter(({ untilAt }) => untilAt === undefined || untilAt > steady());
    if (reclaims.length === word.reclaims.length) return schedule();
    try {
      become({ ...word, reclaims });
    } catch {
      word = { ...word, reclaims };
      tell();
    }
  };
  const deadline = ({ graceSeconds }: Grace) =>
    graceSeconds === undefined ? {} : { deadlineAt: steady() + graceSeconds * 1000 };
  const since = () => new Date(now()).toISOString();

  expire();
  tell();
  return {
    drain({ maintenance = false, ...grace }) {
      const before = word.drain;
      become({
        ...word,
        drain: {
          maintenance: maintenance || before?.maintenance === true,
          since: before?.since ?? since(),
          ...deadline(grace),
        },
      });
    },
    reclaim({ gpus, forMs, ...grace }) {
      const scope = gpus === undefined ? {} : { gpus: [...gpus].sort() };
      const isSame = (other: Reclaim) => JSON.stringify(other.gpus) === JSON.stringify(scope.gpus);
      const reclaim: Reclaim = {
        ...scope,
        since: word.reclaims.find(isSame)?.since ?? since(),
        ...(forMs !== undefined && { untilAt: steady() + forMs }),
        ...deadline(grace),
      };
      become({ ...word, reclaims: [...word.reclaims.filter((other) => !isSame(other)), reclaim] });
    },
    resume({ gpus } = {}) {
      if (gpus === undefined) return become({ reclaims: [] });
      const reclaims = word.reclaims.flatMap((reclaim) => {
        if (reclaim.gpus === undefined) return [reclaim];
        const left = reclaim.gpus.filter((uuid) => !gpus.includes(uuid));
        return left.length === 0 ? [] : [{ ...reclaim, gpus: left }];
      });
      become({ ...word, reclaims });
    },
    get isForMaintenance() {
      return word.drain?.maintenance === true;
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

function claimsOf({ drain, reclaims }: Word): Claim[] {
  const drained = drain?.maintenance === true ? "drained by its owner for maintenance" : "drained by its owner";
  return [
    ...(drain === undefined ? [] : [claim(drain, drained)]),
    ...reclaims.map((reclaim) => claim(reclaim, "taken back by its owner")),
  ];
}

function claim(of: Partial<Reclaim> & { since: string }, message: string): Claim {
  const { gpus, since, untilAt, deadlineAt } = of;
  return {
    message,
    work: "stop",
    since,
    ...(gpus !== undefined && { gpus }),
    ...(untilAt !== undefined && { untilAt }),
    ...(deadlineAt !== undefined && { deadlineAt }),
  };
}

/** What cannot be read is no word: the owner gives it again. */
function remembered(text: string | undefined): Word {
  if (text === undefined) return { reclaims: [] };
  try {
    return Word.parse(JSON.parse(text));
  } catch {
    return { reclaims: [] };
  }
}
