import { between, duration, energy, gpuHours, mib, usedOf } from "../../local/in-words.ts";
import type { Snapshot } from "../../local/snapshot.ts";
import { noticeReason, shortGpu } from "../../local/workload-words.ts";
import { NODE_COLORS, reliabilityInWords, undeliveredInWords } from "../status-words.ts";
import type { Earnings } from "./earnings.ts";
import { graph } from "./graph.ts";
import { blank, cutLine, ends, fill, type Line, own, parts, say } from "./line.ts";
import { countdown } from "./workload-rows.ts";

/** The daemon does not answer; the picture is the last one. */
export interface Away {
  /** Milliseconds since the epoch. */
  since: number;
  /** It is not running, rather than slow or not willing. */
  isGone: boolean;
  message: string;
}

const LABEL = 12;
/** Below this labels take too much of the line. */
const LABELS_FROM = 60;

/** Who it is and how it is, and the time at the end: a second that passes shows that the picture lives. */
export function titleRow({ node }: Snapshot, { width, now, away }: { width: number; now: number; away?: Away }): Line {
  const time = [say(timeOfDay(now), "dim")];
  const name = say(node.name, "bold");
  if (away !== undefined) {
    const gone = `${away.isGone ? "not running" : "no answer"} since ${timeOfDay(away.since)}, for ${duration(now - away.since)}`;
    return ends(parts([[name], [say(gone, "red", "bold")]], width), time, width);
  }
  const figures = [
    [name, blank(2), say(node.state, NODE_COLORS[node.state], "bold")],
    [say(`up ${duration(now - Date.parse(node.startedAt))}`)],
    [say(`gpunode ${node.version}`, "dim")],
  ];
  return ends(parts(figures, Math.max(1, width - 10)), time, width);
}

/** Who has to go, from where, and how many seconds there are left; across the whole window. */
export function leavingRows({ workloads, gpus }: Snapshot, { width, now }: { width: number; now: number }): Line[] {
  return workloads.flatMap(({ id, gpus: held, notice, finishedAt }) => {
    if (notice?.deadline === undefined || finishedAt !== undefined) return [];
    const left = Date.parse(notice.deadline) - now;
    const where = held.length === 0 ? "" : ` GPU ${held.map((uuid) => shortGpu(uuid, gpus)).join(", ")}`;
    const text = `▲ ${id} leaves${where} in ${countdown(left)}: ${noticeReason(notice)}`;
    const tones = ["inverse", "bold", left <= 10_000 ? "red" : "yellow"] as const;
    return [fill([say(text)], width).map((span) => own(span.text, ...tones))];
  });
}

/** Whether the coordinator is there. What is wrong with it is as important as what is wrong with a GPU. */
export function connectionRow(
  { connection }: Snapshot,
  { width, now }: { width: number; now: number },
): { line: Line; isWell: boolean } {
  const { url = "", state, since, lastError, retryAt } = connection;
  const lasting = between(since, new Date(now).toISOString());
  const undelivered = undeliveredInWords(connection).map((text) => [say(text, "yellow")]);
  const where = [say(url)];
  const why = lastError === undefined ? [] : [[say(lastError)]];
  const told = (figures: Line[]) => labelled("coordinator", figures, width);
  switch (state) {
    case "off":
      return { isWell: true, line: told([[say("none configured (coordinator.url)", "dim")]]) };
    case "connected":
      return { isWell: true, line: told([[say("connected", "green"), own(` for ${lasting}`)], ...undelivered, where]) };
    case "connecting":
      return {
        isWell: false,
        line: told([[say(`connecting for ${lasting}`, "yellow")], ...undelivered, where, ...why]),
      };
    case "waiting": {
      const retry = retryAt === undefined ? [] : [[say(`next try in ${countdown(Date.parse(retryAt) - now)}`)]];
      const figures = [[say(`not connected for ${lasting}`, "red", "bold")], ...retry, ...undelivered, ...why, where];
      return { isWell: false, line: told(figures) };
    }
  }
}

export function hostRow({ host: { info, telemetry }, engine }: Snapshot, width: number): Line {
  const busy = telemetry?.cpuPercent === undefined ? "" : ` ${Math.round(telemetry.cpuPercent)} % busy`;
  const memory = usedOf(telemetry?.memoryUsedMiB, telemetry?.memoryTotalMiB ?? info.memoryMiB);
  const stalled = Math.round(telemetry?.memoryPressureSome10 ?? 0);
  return labelled(
    "host",
    [
      ...(engine.available ? [] : [[say(`${engine.kind} is not available`, "red")]]),
      [say(`${info.cpus} CPUs${busy}`)],
      [say(`memory ${memory}`), ...(stalled === 0 ? [] : [say(`, ${stalled} % stalled`, "yellow")])],
      ...(telemetry?.diskFreeMiB === undefined ? [] : [[say(`disk ${mib(telemetry.diskFreeMiB)} free`)]]),
      ...(engine.available ? [[say(`${engine.kind} ${engine.version ?? ""}`.trim(), "dim")]] : []),
    ],
    width,
  );
}

/** What there is to bill: today, and the last seven days with a column for each. */
export function lentRow({ days, isVerified }: Earnings, width: number): Line {
  const most = Math.max(...days.map(({ gpuSeconds }) => gpuSeconds));
  const today = days.at(-1);
  const week = days.reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0);
  const joules = days.flatMap(({ energyJoules }) => energyJoules ?? []);
  const weekJoules = joules.length === 0 ? undefined : joules.reduce((sum, value) => sum + value, 0);
  const shape =
    most === 0
      ? []
      : (graph(
          days.map(({ gpuSeconds }) => (100 * gpuSeconds) / most),
          1,
          "green",
        )[0] ?? []);
  return labelled(
    "lent",
    [
      ...(isVerified ? [] : [[say('not all of it verifies: see "gpunode usage"', "red")]]),
      [own("today ", "dim"), say(lentInWords(today?.gpuSeconds ?? 0, today?.energyJoules))],
      [own("7 days ", "dim"), say(lentInWords(week, weekJoules))],
      shape,
    ],
    width,
  );
}

function lentInWords(gpuSeconds: number, joules: number | undefined): string {
  if (gpuSeconds === 0) return "nothing";
  const hours = gpuSeconds < 3600 ? gpuHours(gpuSeconds) : (gpuSeconds / 3600).toFixed(gpuSeconds < 36_000 ? 2 : 1);
  return `${hours} GPU-hours${joules === undefined ? "" : `, ${energy(joules)}`}`;
}

export function reliabilityRow(snapshot: Snapshot, width: number): Line | undefined {
  const [line, ...rest] = reliabilityInWords(snapshot);
  if (line === undefined) return undefined;
  return labelled("30 days", [[say(line)], ...rest.map((text) => [say(text, "dim")])], width);
}

/** Where the same, and more of the past, is to be seen in a browser. */
export function pageRow(page: string, width: number): Line {
  return labelled("page", [[say(page, "dim")]], width);
}

function labelled(label: string, figures: readonly Line[], width: number): Line {
  if (width < LABELS_FROM) {
    const short = label === "coordinator" ? [] : [own(`${label} `, "dim")];
    return cutLine([...short, ...parts(figures, width - (short.length === 0 ? 0 : label.length + 1))], width);
  }
  return [...fill([say(label, "dim")], LABEL + 1), ...parts(figures, width - LABEL - 1)];
}

/** `14:03:05` by this machine's clock. */
function timeOfDay(at: number): string {
  const time = new Date(at);
  return [time.getHours(), time.getMinutes(), time.getSeconds()]
    .map((value) => String(value).padStart(2, "0"))
    .join(":");
}
