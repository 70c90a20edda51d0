import { useEffect, useState } from "preact/hooks";
import { Commands } from "./command.tsx";
import { Events } from "./events.tsx";
import { type Feed, useHistory, useNow, useStatus, useUsage } from "./feed.ts";
import { GpuCard } from "./gpu-card.tsx";
import { Head } from "./head.tsx";
import { HostCard } from "./host-card.tsx";
import { NotLent, Problems } from "./problems.tsx";
import { Week } from "./week.tsx";
import { Workloads } from "./workloads.tsx";

const RANGES = [1, 6, 24] as const;

/** The whole page. */
export function App() {
  const [hours, setHours] = useState<number>(() => RANGES.find((range) => location.hash === `#${range}h`) ?? 24);
  const feed = useStatus();
  const history = useHistory(hours);
  const usage = useUsage();
  const now = useNow(feed);
  const { snapshot } = feed;
  const name = snapshot?.node.name;
  useEffect(() => {
    document.title = name === undefined ? "gpunode" : `${name} · gpunode`;
  }, [name]);
  if (snapshot === undefined) {
    return (
      <>
        <Silence feed={feed} />
        <main class="waiting">
          <p>The daemon is being asked …</p>
        </main>
      </>
    );
  }
  const view = { snapshot, now, hours, history };
  return (
    <>
      <Silence feed={feed} />
      <Head view={view} />
      <main>
        <Problems view={view} />
        <NotLent view={view} />
        <section aria-labelledby="gpus">
          <div class="title">
            <h2 id="gpus">{snapshot.gpus.length === 1 ? "GPU" : "GPUs"}</h2>
            <Range hours={hours} onChange={setHours} />
          </div>
          {snapshot.gpus.length === 0 && <p class="card soft">No GPU is in sight.</p>}
          <div class="grid">
            {snapshot.gpus.map((gpu) => (
              <GpuCard key={gpu.uuid} gpu={gpu} view={view} />
            ))}
          </div>
        </section>
        <Workloads view={view} />
        <HostCard view={view} />
        <div class="pair">
          <Week usage={usage} />
          <Commands isHeld={snapshot.holds.length > 0} />
        </div>
        <Events view={view} />
      </main>
    </>
  );
}

function Range({ hours, onChange }: { hours: number; onChange(hours: number): void }) {
  const choose = (range: number) => {
    window.history.replaceState(null, "", `#${range}h`);
    onChange(range);
  };
  return (
    <fieldset class="range">
      <legend class="unseen">Time shown</legend>
      {RANGES.map((range) => (
        <label key={range}>
          <input type="radio" name="range" value={range} checked={hours === range} onChange={() => choose(range)} />
          <span>{range} h</span>
        </label>
      ))}
    </fieldset>
  );
}

/** Says that the daemon says nothing; over the page, so that nothing in it moves. */
function Silence({ feed: { snapshot, silence } }: { feed: Feed }) {
  const last = snapshot === undefined ? "" : ` What you see is from ${clockOf(snapshot.at)}.`;
  return (
    <div class="silence" role="status">
      {silence !== undefined && (
        <p>
          <strong>The daemon does not answer, since {clockOf(new Date(silence.sinceMs).toISOString())}</strong>.{last}{" "}
          It is asked again all the time.
        </p>
      )}
    </div>
  );
}

/** "14:05:09". */
function clockOf(at: string): string {
  return new Date(at).toLocaleTimeString("en-GB");
}
