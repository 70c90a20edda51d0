import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { timeOfDay } from "./words.ts";

/** Room for the axes left and right of the drawing; the bands below are indented by the same. */
export const AXIS_PX = 46;

export interface Line {
  values: readonly (number | null)[];
  /** A custom property of the style sheet. */
  color: `--${string}`;
  /** The area below it; likewise. */
  fill?: `--${string}`;
  /** No line, only its area. */
  isShadow?: true;
  side: "left" | "right";
}

export interface Axis {
  max: number;
  /** Where there is a tick, and what it says. */
  ticks: readonly (readonly [value: number, text: string])[];
}

export interface Panel {
  heightPx: number;
  lines: readonly Line[];
  left: Axis;
  right?: Axis;
}

/** A vertical line. */
export interface Tick {
  atMs: number;
  color: `--${string}`;
}

export interface ChartProps {
  /** One below the other; as many as at first. */
  panels: readonly Panel[];
  /** Of the first value; all lines have the same steps. */
  startMs: number;
  stepMs: number;
  shown: { fromMs: number; toMs: number };
  ticks: readonly Tick[];
  /** Which value the pointer or the arrow keys are at; undefined where neither is. */
  onPoint(at: number | undefined): void;
  /** For who does not see it. */
  label: string;
  at: number | undefined;
  atInWords: string;
}

/** Figures over time. Charts move their cursors together. */
export function Chart(props: ChartProps) {
  const { panels, label, at, atInWords, onPoint } = props;
  const root = useRef<HTMLDivElement>(null);
  const plots = useRef<uPlot[]>([]);
  const latest = useRef(props);
  latest.current = props;

  useLayoutEffect(() => {
    const place = root.current;
    if (place === null) return undefined;
    plots.current = latest.current.panels.map((_, index) => plotIn(place, index, () => latest.current));
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => {
      for (const plot of plots.current) plot.redraw(false, true);
    };
    dark.addEventListener("change", redraw);
    const sizes = new ResizeObserver(() => {
      for (const plot of plots.current) plot.setSize({ width: place.clientWidth, height: plot.height });
    });
    sizes.observe(place);
    return () => {
      sizes.disconnect();
      dark.removeEventListener("change", redraw);
      for (const plot of plots.current) plot.destroy();
      plots.current = [];
    };
  }, []);

  useEffect(() => {
    plots.current.forEach((plot, index) => {
      plot.setData(dataOf(latest.current, index));
    });
  });

  const count = panels[0]?.lines[0]?.values.length ?? 0;
  const move = (to: number | undefined) => {
    const [plot] = plots.current;
    if (plot === undefined) return;
    const x = to === undefined ? undefined : plot.data[0][Math.min(count - 1, Math.max(0, to))];
    // The middle of the first and the last step may lie beyond the edge.
    const inside = (left: number) => Math.min(plot.over.clientWidth - 1, Math.max(0, left));
    plot.setCursor(x === undefined ? { left: -10, top: -10 } : { left: inside(plot.valToPos(x, "x")), top: 1 });
    onPoint(plot.cursor.idx ?? undefined);
  };
  const press = (event: KeyboardEvent) => {
    const from = at ?? count - 1;
    const steps: Record<string, number | undefined> = {
      ArrowLeft: from - 1,
      ArrowRight: from + 1,
      PageUp: from - 12,
      PageDown: from + 12,
      Home: 0,
      End: count - 1,
      Escape: undefined,
    };
    if (!Object.hasOwn(steps, event.key)) return;
    event.preventDefault();
    move(steps[event.key]);
  };
  return (
    <div
      class="chart"
      ref={root}
      role="slider"
      tabIndex={0}
      aria-label={label}
      aria-orientation="horizontal"
      aria-valuemin={0}
      aria-valuemax={Math.max(0, count - 1)}
      aria-valuenow={at ?? Math.max(0, count - 1)}
      aria-valuetext={atInWords}
      onKeyDown={press}
      onBlur={() => move(undefined)}
    />
  );
}

function dataOf({ panels, startMs, stepMs }: ChartProps, index: number): uPlot.AlignedData {
  const lines = panels[index]?.lines ?? [];
  const count = lines[0]?.values.length ?? 0;
  // A value speaks for all of its step.
  const times = Array.from({ length: count }, (_, at) => (startMs + (at + 0.5) * stepMs) / 1000);
  return [times, ...lines.map(({ values }) => [...values])];
}

function plotIn(place: HTMLElement, index: number, props: () => ChartProps): uPlot {
  const panel = () => props().panels[index];
  const isLast = index === props().panels.length - 1;
  const axis = (side: "left" | "right"): uPlot.Axis => ({
    scale: side,
    side: side === "left" ? 3 : 1,
    size: AXIS_PX,
    gap: 4,
    font: FONT,
    stroke: () => colorOf(place, "--soft"),
    grid: { show: side === "left", width: 1, stroke: () => colorOf(place, "--grid") },
    ticks: { show: false },
    splits: () => panel()?.[side]?.ticks.map(([value]) => value) ?? [],
    values: () => panel()?.[side]?.ticks.map(([, text]) => text) ?? [],
  });
  const options: uPlot.Options = {
    width: place.clientWidth,
    height: (panel()?.heightPx ?? 0) + (isLast ? TIME_PX : 0),
    padding: [7, 0, isLast ? 0 : 6, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time" }, points: { size: 7, width: 2 } },
    scales: {
      x: { time: true, range: () => [props().shown.fromMs / 1000, props().shown.toMs / 1000] },
      left: { range: () => [0, panel()?.left.max ?? 1] },
      right: { range: () => [0, panel()?.right?.max ?? 1] },
    },
    axes: [
      {
        show: isLast,
        size: TIME_PX,
        gap: 3,
        font: FONT,
        space: 64,
        stroke: () => colorOf(place, "--soft"),
        grid: { show: false },
        ticks: { show: true, size: 4, width: 1, stroke: () => colorOf(place, "--grid") },
        values: (_, splits) => splits.map((seconds) => timeOfDay(seconds * 1000)),
      },
      axis("left"),
      axis("right"),
    ],
    series: [
      {},
      ...(panel()?.lines ?? []).map(
        ({ color, fill, isShadow, side }): uPlot.Series => ({
          scale: side,
          width: isShadow === true ? 0 : 1.5,
          stroke: () => colorOf(place, color),
          points: { show: false },
          ...(fill !== undefined && { fill: () => colorOf(place, fill) }),
        }),
      ),
    ],
    hooks: {
      setCursor: [(plot) => props().onPoint(plot.cursor.idx ?? undefined)],
      drawAxes: [(plot) => drawTicks(plot, place, props().ticks)],
    },
  };
  return new uPlot(options, dataOf(props(), index), place);
}

const FONT = "11px system-ui, sans-serif";
/** Height of the axis of time. */
const TIME_PX = 22;

function drawTicks({ ctx, bbox, valToPos, scales }: uPlot, place: HTMLElement, ticks: readonly Tick[]): void {
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { atMs, color } of ticks) {
    const seconds = atMs / 1000;
    if (seconds < (scales.x?.min ?? 0) || seconds > (scales.x?.max ?? 0)) continue;
    const x = Math.round(valToPos(seconds, "x", true)) + 0.5;
    ctx.strokeStyle = colorOf(place, color);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function colorOf(place: HTMLElement, property: string): string {
  return getComputedStyle(place).getPropertyValue(property);
}
