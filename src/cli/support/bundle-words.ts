import { optionsOf, renderTable } from "../table.ts";
import type { Bundle } from "./bundle.ts";
import type { Hidden } from "./redactor.ts";

/** What is in a bundle, what was hidden in it, and what its owner should know before giving it away. */
export function bundleInWords({ path, bytes, parts }: Bundle): string {
  const columns = [
    { title: "FILE" },
    { title: "SIZE", align: "right" as const },
    { title: "HIDDEN IN IT, OR WHY IT IS NOT WHOLE", shrinks: true as const },
  ];
  const rows = parts.map(({ file, text, hidden, problem }) => [
    file,
    text === "" ? "-" : sizeInWords(Buffer.byteLength(text)),
    [hiddenInWords(hidden), ...(problem === undefined ? [] : [problem])].filter((part) => part !== "").join("; "),
  ]);
  const total: Hidden = {};
  for (const { hidden } of parts) {
    for (const [kind, times] of Object.entries(hidden)) total[kind] = (total[kind] ?? 0) + times;
  }
  const found = hiddenInWords(total);
  return `${renderTable(columns, rows, optionsOf(process.stdout))}
Written: ${path} (${sizeInWords(bytes)}, readable by you alone).
Hidden${found === "" ? ": nothing, as no secret was found" : `: ${found}`}. Not hidden are the names of this machine, its programs, images and coordinator; look through it before
you give it away: tar -tzf lists it, manifest.json in it says where each file comes from.
`;
}

/** "2 × join token, 1 × private key". */
function hiddenInWords(hidden: Hidden): string {
  return Object.entries(hidden)
    .map(([kind, times]) => `${times} × ${kind}`)
    .join(", ");
}

function sizeInWords(bytes: number): string {
  return bytes < 1024
    ? `${bytes} B`
    : bytes < 1024 * 1024
      ? `${Math.round(bytes / 1024)} KiB`
      : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
