import { STEPS_MS } from "./history.ts";
import { type Line, own, say } from "./line.ts";

/** What the viewer has chosen to see. */
export interface ViewState {
  /** Entries (GPUs, then workloads) that are above the window. */
  offset: number;
  /** All workloads that ended, not only the last few. */
  allEnded: boolean;
  help: boolean;
  /** Index into `STEPS_MS`. */
  zoom: number;
}

export const FIRST_VIEW: ViewState = { offset: 0, allEnded: false, help: false, zoom: 1 };

/** A key as `readline.emitKeypressEvents` names it. */
export interface Key {
  name?: string;
  sequence?: string;
  ctrl?: boolean;
}

/** What a key asks for: another view, or something of the program. */
export type Wish = { view: ViewState } | "quit" | "suspend" | "redraw" | undefined;

const PAGE = 10;
const CONTROL = new Map<string | undefined, Exclude<Wish, object>>([
  ["c", "quit"],
  ["z", "suspend"],
  ["l", "redraw"],
]);

/** `last`: the farthest the picture can be scrolled. Keys without a meaning ask for nothing. */
export function wishOf({ name, sequence, ctrl }: Key, view: ViewState, last: number): Wish {
  if (ctrl === true) return CONTROL.get(name);
  if (view.help) return { view: { ...view, help: false } };
  const offset = Math.min(view.offset, last);
  const scrolled = (by: number): Wish => ({ view: { ...view, offset: Math.max(0, Math.min(last, offset + by)) } });
  const zoomed = (by: number): Wish => ({
    view: { ...view, zoom: Math.max(0, Math.min(STEPS_MS.length - 1, view.zoom + by)) },
  });
  switch (name ?? sequence) {
    case "q":
      return "quit";
    case "down":
    case "j":
      return scrolled(1);
    case "up":
    case "k":
      return scrolled(-1);
    case "pagedown":
    case "space":
      return scrolled(PAGE);
    case "pageup":
      return scrolled(-PAGE);
    case "home":
      return scrolled(-last);
    case "end":
      return scrolled(last);
    case "w":
      return { view: { ...view, offset: 0, allEnded: !view.allEnded } };
    case "h":
    case "?":
      return { view: { ...view, help: true } };
    case "+":
    case "=":
      return zoomed(-1);
    case "-":
      return zoomed(1);
    default:
      return undefined;
  }
}

export const KEYS_LINE: Line = [
  ...[own("q", "bold"), own(" quit  ", "dim"), own("?", "bold"), own(" help  ", "dim"), own("w", "bold")],
  ...[own(" ended  ", "dim"), own("↑↓", "bold"), own(" scroll  ", "dim"), own("+ -", "bold"), own(" time", "dim")],
];

export const HELP: Line[] = [
  [say("gpunode status --watch", "bold")],
  [],
  ...(
    [
      ["q, Ctrl-C", "quit"],
      ["↑ ↓, k j", "scroll the GPUs and workloads"],
      ["page up, page down", "the same by ten, home and end to the ends"],
      ["w", "all workloads that ended, or the last few"],
      ["+ -", "graphs over a shorter or a longer time"],
      ["Ctrl-L", "draw anew"],
      ["Ctrl-Z", 'stop for now; the shell\'s "fg" goes on'],
    ] as const
  ).map(([key, does]): Line => [own(`  ${key.padEnd(20)}`, "bold"), say(does)]),
  [],
  [say("UTIL is how busy a GPU is, VRAM how full its memory. The graphs show both over")],
  [say("the time that stands at the bottom; what is newest is on the right.")],
  [say("Nothing is changed from here: gpunode reclaim, drain and resume do that.")],
  [],
  [say("Any key goes back.", "dim")],
];
