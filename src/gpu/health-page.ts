import { HEALTH_TABLE, type HealthRow, XID_CLASSES } from "./nvidia/health-table.ts";
import { XIDS } from "./nvidia/xid.ts";

/** The tables of docs/health.md, each between its marks. */
const TABLES: Readonly<Record<string, () => string[]>> = {
  conditions: () => [
    "| code | health | ends running work | given to new work | told by | until | source |",
    "|---|---|---|---|---|---|---|",
    ...HEALTH_TABLE.map(
      (row) => `| \`${row.code}\` | ${consequences(row)} | ${row.told} | ${row.until} | ${row.source} |`,
    ),
  ],
  classes: () => [
    "| class | health | ends running work | given to new work | until |",
    "|---|---|---|---|---|",
    ...Object.entries(XID_CLASSES).map(([name, row]) => `| ${name} | ${consequences(row)} | ${row.until} |`),
  ],
  xids: () => [
    "| Xid | class | meaning |",
    "|---|---|---|",
    ...XIDS.map((row) => `| ${row.xid} | ${row.class} | ${row.meaning} |`),
  ],
};

/** The page with its tables as the code has them. */
export function healthPage(page: string): string {
  let text = page;
  for (const [name, lines] of Object.entries(TABLES)) {
    const marked = new RegExp(`(<!-- ${name} -->\\n)[^]*?(<!-- /${name} -->)`);
    text = text.replace(marked, (_, from: string, to: string) => `${from}${lines().join("\n")}\n${to}`);
  }
  return text;
}

function consequences({
  status,
  endsWork,
  allocatable,
}: Pick<HealthRow, "status" | "endsWork" | "allocatable">): string {
  return `${status} | ${endsWork ? "yes" : "no"} | ${allocatable ? "yes" : "no"}`;
}
