// Loaded into a daemon with --import: its wall clock is off by the milliseconds that the file GPUNODE_TEST_CLOCK holds, from one moment to
// the next when it changes, as after an NTP step. What passes (timers, the monotonic clock) is left alone.
import { readFileSync } from "node:fs";

const path = process.env.GPUNODE_TEST_CLOCK ?? "";
const TrueDate = Date;
const trueNow = Date.now;
let offsetMs = 0;
const read = () => {
  try {
    offsetMs = Number(readFileSync(path, "utf8")) || 0;
  } catch {
    offsetMs = 0;
  }
};
read();
setInterval(read, 100).unref();

globalThis.Date = class SteppedDate extends TrueDate {
  constructor(...parts) {
    if (parts.length === 0) super(trueNow() + offsetMs);
    else super(...parts);
  }

  static now() {
    return trueNow() + offsetMs;
  }
};
