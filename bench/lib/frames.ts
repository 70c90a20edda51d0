import { WebSocket } from "ws";

/** A frame of the protocol as the coordinator in this process sees it. */
export interface SeenFrame {
  direction: "received" | "sent";
  text: string;
  /** When it came, or went; by `performance.now()`. The listener is called when the coordinator's handler has returned. */
  at: number;
}

const listeners = new Set<(frame: SeenFrame) => void>();
let isPatched = false;

/** Only the coordinator has web sockets in this process: the daemon is another. */
function patch(): void {
  if (isPatched) return;
  isPatched = true;
  const tell = (direction: SeenFrame["direction"], text: string, at: number) => {
    for (const listener of [...listeners]) listener({ direction, text, at });
  };
  const { emit, send } = WebSocket.prototype;
  WebSocket.prototype.emit = function (this: WebSocket, event: string | symbol, ...args: unknown[]) {
    const at = performance.now();
    const result = emit.call(this, event, ...args);
    if (event === "message") tell("received", String(args[0]), at);
    return result;
  } as typeof emit;
  WebSocket.prototype.send = function (this: WebSocket, ...args: unknown[]) {
    tell("sent", String(args[0]), performance.now());
    return (send as (...args: unknown[]) => void).apply(this, args);
  } as typeof send;
}

/** Calls the listener with each frame until disposed of. */
export function onFrames(listener: (frame: SeenFrame) => void): Disposable {
  patch();
  listeners.add(listener);
  return { [Symbol.dispose]: () => listeners.delete(listener) };
}

/** The next frame in which all of these texts stand. */
export function nextFrame(direction: SeenFrame["direction"], ...texts: string[]): Promise<SeenFrame> {
  return new Promise((resolve) => {
    const listening = onFrames((frame) => {
      if (frame.direction !== direction || !texts.every((text) => frame.text.includes(text))) return;
      listening[Symbol.dispose]();
      resolve(frame);
    });
  });
}
