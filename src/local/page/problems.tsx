import { holdInWords } from "../hold-words.ts";
import { between, duration } from "../in-words.ts";
import { shortGpu } from "../workload-words.ts";
import type { View } from "./view.ts";

/** What keeps the node from being all it could be, and what to do. */
export function Problems({ view: { snapshot, now } }: { view: View }) {
  const at = new Date(now).toISOString();
  const { problems, lastError } = snapshot;
  return (
    <>
      {problems.length > 0 && (
        <section class="card problems" aria-labelledby="problems">
          <h2 id="problems">
            <span class="sign" aria-hidden="true">
              ▲
            </span>{" "}
            {problems.length === 1 ? "Problem" : "Problems"}
          </h2>
          <ul>
            {problems.map(({ code, message, since }) => (
              <li key={`${code} ${message}`}>
                {message}
                {since !== undefined && <span class="soft"> (for {between(since, at)})</span>}
              </li>
            ))}
          </ul>
        </section>
      )}
      {lastError !== undefined && (
        <p class="soft last">
          Last error, {between(lastError.at, at)} ago: {lastError.message}
        </p>
      )}
    </>
  );
}

/** Why what is kept from being lent is kept, and until when. */
export function NotLent({ view: { snapshot, now } }: { view: View }) {
  const { holds, gpus } = snapshot;
  if (holds.length === 0) return null;
  const at = new Date(now).toISOString();
  return (
    <section class="card holds" aria-labelledby="holds">
      <h2 id="holds">Not lent</h2>
      <ul>
        {holds.map((hold) => (
          <li key={`${hold.cause} ${hold.since} ${hold.message} ${hold.gpus?.join()}`}>
            {holdInWords(hold, (uuid) => shortGpu(uuid, gpus), at)}
            {hold.until !== undefined && (
              <span class="soft"> ({duration(Math.max(0, Date.parse(hold.until) - now))} left)</span>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
