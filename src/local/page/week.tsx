import { energy } from "../in-words.ts";
import type { UsageDays } from "../usage-days.ts";

/** GPU-hours and energy of the last seven days: what a bill is made of. */
export function Week({ usage }: { usage: UsageDays | undefined }) {
  const days = usage?.days ?? [];
  const most = Math.max(1, ...days.map(({ gpuSeconds }) => gpuSeconds));
  return (
    <section class="card lent" aria-labelledby="week">
      <h2 id="week">GPU-hours lent in the last seven days</h2>
      <ol class="week">
        {days.map(({ day, gpuSeconds, energyJoules, records }) => (
          <li key={day} title={`${day}: ${records} ${records === 1 ? "record" : "records"}`}>
            <span class="amount">{gpuSeconds === 0 ? "" : hoursOf(gpuSeconds)}</span>
            <span class="column" aria-hidden="true">
              <span style={{ height: `${(gpuSeconds / most) * 100}%` }} />
            </span>
            <span class="day">{weekday(day)}</span>
            <span class="soft">{energyJoules === undefined ? "" : energy(energyJoules)}</span>
          </li>
        ))}
      </ol>
      <p class="soft sum">{usage === undefined ? "The records are being verified." : sumOf(usage)}</p>
    </section>
  );
}

function sumOf({ days, unverified }: UsageDays): string {
  const records = days.reduce((sum, day) => sum + day.records, 0);
  if (records === 0) return "Nothing was used.";
  const hours = hoursOf(days.reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0));
  const joules = days.reduce((sum, { energyJoules }) => sum + (energyJoules ?? 0), 0);
  const sum = `${hours} GPU-hours and ${energy(joules)} in ${records.toLocaleString("en")} records`;
  if (unverified === 0) return `${sum}, every one signed by this node and none missing.`;
  return `${sum}; ${unverified} of them do not verify, "gpunode usage --since 7d" says which.`;
}

/** "19.4", "0.003". */
function hoursOf(seconds: number): string {
  return (seconds / 3600).toFixed(seconds < 360 ? 3 : 1);
}

function weekday(day: string): string {
  return new Date(`${day}T12:00:00`).toLocaleDateString("en", { weekday: "short" });
}
