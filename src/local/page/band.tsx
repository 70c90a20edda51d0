import { AXIS_PX } from "./chart.tsx";
import type { Segment } from "./lanes.ts";
import { timeOfDay } from "./words.ts";

/** With more rows than this there is no room for names. */
const MOST_NAMED_LANES = 2;

/** Who held a GPU, below its chart. */
export function Band({ segments, label }: { segments: readonly Segment[]; label: string }) {
  const lanes = Math.max(1, ...segments.map(({ lane }) => lane + 1));
  const isNamed = lanes <= MOST_NAMED_LANES;
  return (
    <ol
      class={isNamed ? "band named" : "band"}
      aria-label={label}
      style={{ marginInline: `${AXIS_PX}px`, "--lanes": String(lanes) }}
    >
      {segments.map(({ workload, fromMs, toMs, left, width, lane, color }) => {
        const text = `${workload}, ${timeOfDay(fromMs)} to ${timeOfDay(toMs)}`;
        return (
          <li
            key={`${workload} ${fromMs}`}
            class={`work-${color}`}
            title={text}
            style={{ left: `${left * 100}%`, width: `${width * 100}%`, "--lane": String(lane) }}
          >
            {isNamed && width > 0.06 ? workload : <span class="unseen">{workload}</span>}
          </li>
        );
      })}
    </ol>
  );
}
