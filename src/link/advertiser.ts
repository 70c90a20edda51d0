import type { Advertise } from "../protocol/agent-frames.ts";
import { MAX_FRAME_BYTES } from "../protocol/limits.ts";
import type { Advertisement } from "./needs.ts";
import type { Outbox } from "./outbox.ts";

/** Changes that come together (a workload ends, its GPU is free, its image stays) are told together. */
const COALESCE_MS = 250;

export interface AdvertiserOptions {
  read: () => Advertisement;
  /** Grows over all sessions of this process. */
  nextRevision: () => number;
  onFailure: (error: unknown) => void;
}

/** Tells the coordinator what the node can do: once at the beginning, then when it has become something else. */
export class Advertiser implements Disposable {
  readonly #outbox: Outbox;
  readonly #options: AdvertiserOptions;
  #told = "";
  #timer: NodeJS.Timeout | undefined;

  /** Advertises at once. */
  constructor(outbox: Outbox, options: AdvertiserOptions) {
    this.#outbox = outbox;
    this.#options = options;
    this.#tell();
  }

  /** Something may have changed. */
  changed(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      // A slow reader gets the newest when there is room, not each.
      if (this.#outbox.isFull) return this.changed();
      try {
        this.#tell();
      } catch (error) {
        this.#options.onFailure(error);
      }
    }, COALESCE_MS);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #tell(): void {
    const advertisement = fitting(this.#options.read());
    const text = JSON.stringify(advertisement);
    if (text === this.#told) return;
    this.#told = text;
    const frame: Advertise = { type: "advertise", revision: this.#options.nextRevision(), ...advertisement };
    this.#outbox.send(frame);
  }
}

/** A machine with thousands of images names fewer of them, so that the frame stays within the contract. */
function fitting(advertisement: Advertisement): Advertisement {
  let { images } = advertisement;
  const room = MAX_FRAME_BYTES - 1024 - Buffer.byteLength(JSON.stringify({ ...advertisement, images: [] }));
  while (images.length > 0 && Buffer.byteLength(JSON.stringify(images)) > room) {
    images = images.slice(0, Math.floor(images.length / 2));
  }
  return { ...advertisement, images };
}
