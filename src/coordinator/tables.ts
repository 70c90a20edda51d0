import { styleText } from "node:util";
import type { Reliability } from "../protocol/agent-frames.ts";
import { upInWords } from "../protocol/reliability.ts";
import type { TaggedEvent } from "./client.ts";
import { isEnd } from "./states.ts";
import type { NodeView, WorkloadView } from "./views.ts";

/** What the API's answers look like to a person. Colour only where the stream shows it. */

type Style = Parameters<typeof styleText>[0];
interface Cell {
  text: string;
  style?: Style;
}

const NODE_STYLE = { available: "green", draining: "yellow", offline: "yellow", barred: "red" } as const;

export function nodesTable(nodes: readonly NodeView[], stream: NodeJS.WriteStream): string {
  const rows = nodes.map((node) => [
    node.name,
    node.id,
    { text: node.state, style: NODE_STYLE[node.state] },
    gpusInWords(node),
    String(node.workloads.length),
    node.connected ? "now" : node.lastSeenAt,
    node.reliability === undefined ? "-" : reliabilityInWords(node.reliability),
  ]);
  return table(["NAME", "ID", "STATE", "GPUS", "WORKLOADS", "LAST SEEN", "30 DAYS"], rows, stream);
}

export function workloadsTable(workloads: readonly WorkloadView[], stream: NodeJS.WriteStream): string {
  const rows = workloads.map((workload) => [
    workload.id,
    stateCell(workload),
    workload.nodeName ?? "-",
    String(workload.gpus.length || workload.spec.gpus.count),
    workload.spec.image,
    workload.createdAt.slice(0, 19).replace("T", " "),
    remark(workload),
  ]);
  return table(["ID", "STATE", "NODE", "GPUS", "IMAGE", "SUBMITTED", ""], rows, stream);
}

/** One workload with all that was told of it. */
export function workloadInWords(
  workload: WorkloadView & { events: readonly TaggedEvent[] },
  stream: NodeJS.WriteStream,
): string {
  const facts: [string, string | undefined][] = [
    ["id", workload.id],
    ["generation", String(workload.generation)],
    ["state", workload.state],
    ["why", remark(workload) || undefined],
    ["node", workload.node === undefined ? undefined : `${workload.nodeName ?? "?"} (${workload.node})`],
    [
      "image",
      workload.imageDigest === undefined ? workload.spec.image : `${workload.spec.image} (${workload.imageDigest})`,
    ],
    ["gpus", workload.gpus.join(", ") || undefined],
    ["ports", workload.ports?.map((port) => `${port.container} → ${port.host}`).join(", ")],
    ["exit code", workload.exitCode?.toString()],
  ];
  const lines = facts.flatMap(([name, value]) => (value === undefined ? [] : [`${name.padEnd(11)} ${plain(value)}`]));
  const events = workload.events.map((event) => eventInWords(event, stream));
  return [...lines, ...(events.length > 0 ? ["", ...events] : []), ""].join("\n");
}

/** One line for one event. */
export function eventInWords(event: TaggedEvent, stream: NodeJS.WriteStream): string {
  const {
    position: _position,
    node: _node,
    seq: _seq,
    at,
    kind,
    workload: _workload,
    generation: _generation,
    ...rest
  } = event;
  const { state, phase, ...more } = rest;
  const headline = String(state ?? phase ?? "");
  const details = Object.entries(more).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  const time = styled("dim", at.slice(11, 23), stream);
  return `${time} ${plain(kind)} ${plain(headline)}${details.length > 0 ? `  ${plain(details.join(" "))}` : ""}`;
}

/** "99.8 % up, 12 done, 1 failed, 2 preempted (notice ≥ 10 s)". */
function reliabilityInWords(reliability: Reliability): string {
  const { succeeded, failed, stopped, preempted, lost } = reliability.workloads;
  const notices = reliability.preemptions.map(({ noticeSeconds }) => noticeSeconds.min);
  const notice = notices.length === 0 ? "" : ` (notice ≥ ${Math.min(...notices)} s)`;
  const counts: [number, string][] = [
    [failed, "failed"],
    [stopped, "stopped"],
    [preempted, `preempted${notice}`],
    [lost, "lost"],
  ];
  const ends = counts.flatMap(([count, word]) => (count === 0 ? [] : [`${count} ${word}`]));
  return [`${upInWords(reliability)} up`, `${succeeded} done`, ...ends].join(", ");
}

function gpusInWords(node: NodeView): string {
  const counts = new Map<string, number>();
  for (const gpu of node.gpus ?? []) counts.set(gpu.name, (counts.get(gpu.name) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} × ${name}`).join(", ") || "none";
}

function stateCell({ state }: WorkloadView): Cell {
  if (state === "succeeded" || state === "running") return { text: state, style: "green" };
  if (state === "failed" || state === "lost" || state === "rejected") return { text: state, style: "red" };
  return isEnd(state) ? { text: state } : { text: state, style: "yellow" };
}

/** The one thing worth knowing besides the state. */
export function remark({ progress, reason, message, exitCode }: WorkloadView): string {
  if (progress !== undefined && progress.totalBytes > 0) {
    return `${Math.floor((100 * progress.currentBytes) / progress.totalBytes)} % of ${mib(progress.totalBytes)}`;
  }
  if (message !== undefined) return message;
  if (reason !== undefined) return reason;
  return exitCode === undefined ? "" : `exit code ${exitCode}`;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}

function table(
  head: readonly string[],
  rows: readonly (readonly (string | Cell)[])[],
  stream: NodeJS.WriteStream,
): string {
  const cells = rows.map((row) => row.map((cell) => (typeof cell === "string" ? { text: plain(cell) } : cell)));
  const widths = head.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i]?.text.length ?? 0)));
  const line = (row: readonly Cell[]) =>
    row
      .map(({ text, style }, i) => {
        const padded = i === row.length - 1 ? text : text.padEnd(widths[i] ?? 0);
        return style === undefined ? padded : styled(style, padded, stream);
      })
      .join("  ")
      .trimEnd();
  return `${[head.map((text) => ({ text, style: "bold" as const })), ...cells].map(line).join("\n")}\n`;
}

function styled(style: Style, text: string, stream: NodeJS.WriteStream): string {
  return styleText(style, text, { stream });
}

/** Names and messages come from other people's machines: nothing in them may steer a terminal. */
function plain(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}
