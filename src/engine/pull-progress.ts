import type { PullLine } from "./answers.ts";

interface Layer {
  currentBytes: number;
  totalBytes: number;
  /** The last thing said of it, to tell news from repetition. */
  said: string;
}

/** Words after which a layer is here to the last byte. */
const WHOLE = new Set(["Download complete", "Verifying Checksum", "Extracting", "Pull complete"]);

/**
 * Adds a pull's lines up: bytes downloaded over all layers, and when something last moved. Totals grow while
 * layers are still being announced. Some engines repeat every layer's line ten times a second whether it moved or not, so only
 * what differs from the line before counts as movement.
 */
export class PullProgress {
  readonly #layers = new Map<string, Layer>();
  readonly #now: () => number;
  /** By the clock given, milliseconds. */
  changedAt: number;
  /** Grows with each change. */
  changes = 0;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.changedAt = now();
  }

  get currentBytes(): number {
    return this.#sum("currentBytes");
  }

  get totalBytes(): number {
    return this.#sum("totalBytes");
  }

  take({ id = "", status = "", progressDetail }: PullLine): void {
    const layer = this.#layers.get(id) ?? { currentBytes: 0, totalBytes: 0, said: "" };
    const said = `${status} ${progressDetail?.current ?? ""}`;
    if (said === layer.said) return;
    layer.said = said;
    this.#layers.set(id, layer);
    this.changes += 1;
    this.changedAt = this.#now();
    if (status === "Downloading" && progressDetail?.units === undefined) {
      layer.currentBytes = bytesOf(progressDetail?.current) ?? layer.currentBytes;
      // The total is absent, or negative, where the registry did not say.
      layer.totalBytes = Math.max(layer.totalBytes, bytesOf(progressDetail?.total) ?? 0, layer.currentBytes);
    }
    // "Retrying in 3 seconds" begins the layer anew, or where it broke off: the next "Downloading" says which.
    if (WHOLE.has(status)) layer.currentBytes = layer.totalBytes;
  }

  #sum(field: "currentBytes" | "totalBytes"): number {
    let sum = 0;
    for (const layer of this.#layers.values()) sum += layer[field];
    return Math.min(Number.MAX_SAFE_INTEGER, sum);
  }
}

/** undefined where it is no number of bytes. */
function bytesOf(value: number | undefined): number | undefined {
  return Number.isSafeInteger(value) && (value ?? -1) >= 0 ? value : undefined;
}
