import { CHECK_GROUPS } from "./checks.ts";

/** docs/doctor.md with its tables of checks as the code has them, between their marks. */
export function doctorPage(page: string): string {
  const tables = CHECK_GROUPS.flatMap(({ title, checks }) => [
    `### ${title}`,
    "",
    "| id | looks at | why it matters | what mends it |",
    "|---|---|---|---|",
    ...checks.map(
      ({ id, title: what, looks, why, mends }) => `| \`${id}\` | **${what}.** ${looks} | ${why} | ${mends} |`,
    ),
    "",
  ]);
  return page.replace(
    /(<!-- checks -->\n)[\s\S]*?(<!-- \/checks -->)/,
    (_, from: string, to: string) => `${from}${tables.join("\n")}${to}`,
  );
}
