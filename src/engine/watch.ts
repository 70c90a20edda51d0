import { setTimeout as sleep } from "node:timers/promises";
import type { EngineInfo, ImageInfo } from "../protocol/agent-frames.ts";
import type { Engine } from "../workload/needs.ts";

const ASK_EVERY_MS = 10_000;
const ASK_AGAIN_MS = 2_000;

/** What the engine is and holds, as last asked. */
export interface EngineWatch extends AsyncDisposable {
  readonly info: EngineInfo;
  readonly images: readonly ImageInfo[];
  /** Why it can't be used; undefined where it can. */
  readonly problem: string | undefined;
  /** Ask again soon: an image came or went. */
  refresh(): void;
}

/** Asks the engine how it is, and goes on asking; `onChange` is called when the answer is another. Never rejects. */
export async function watchEngine(engine: Engine, socketPath: string, onChange: () => void): Promise<EngineWatch> {
  const stop = new AbortController();
  let wake = new AbortController();
  let info: EngineInfo = { kind: "docker", available: false };
  let images: readonly ImageInfo[] = [];
  const ask = async () => {
    const answer = await engine.info(stop.signal);
    const held = answer.available ? await engine.images().catch(() => images) : images;
    const changed = JSON.stringify([answer, held]) !== JSON.stringify([info, images]);
    info = answer;
    images = held;
    if (changed) onChange();
  };
  await ask();
  const loop = async () => {
    while (!stop.signal.aborted) {
      wake = new AbortController();
      const signal = AbortSignal.any([stop.signal, wake.signal]);
      await sleep(info.available ? ASK_EVERY_MS : ASK_AGAIN_MS, undefined, { signal }).catch(() => undefined);
      if (!stop.signal.aborted) await ask();
    }
  };
  const running = loop();
  return {
    get info() {
      return info;
    },
    get images() {
      return images;
    },
    get problem() {
      if (info.available) return undefined;
      return `the Docker engine does not answer on ${socketPath}: start it ("systemctl start docker"), or set docker.socket to where it listens`;
    },
    refresh: () => wake.abort(),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}
