/** Words of the language manual pages are written in, mdoc(7). */

const LINE = 78;

/** Text as it is read: one sentence a line, as mdoc wants it, and nothing in it that would be taken for markup. */
export function prose(text: string): string[] {
  const sentences = text.trim().split(/(?<=[.!?:]) +(?=[A-Z"`])/);
  return sentences.flatMap((sentence) => wrapped(inline(sentence)));
}

/** An argument of a macro: quoted where it has spaces. */
export function word(text: string): string {
  const safe = escaped(text).replaceAll('"', "\\(dq");
  return /[\s]/.test(safe) || safe === "" ? `"${safe}"` : MACRO.test(safe) ? `\\&${safe}` : safe;
}

/** Two or three letters may be the name of a macro. */
const MACRO = /^(?:[A-Z][a-z]|[a-zA-Z]{1,3})$|^[.,:;()[\]?!|]$/;

/** `code` is shown as a literal. */
function inline(text: string): string {
  return text
    .split("`")
    .map((part, index) => (index % 2 === 1 ? `\\fB${escaped(part)}\\fP` : escaped(part)))
    .join("");
}

function escaped(text: string): string {
  return [...text.replaceAll("\\", "\\e").replaceAll("…", "...")]
    .map((letter) => {
      const code = letter.codePointAt(0) ?? 0;
      if (letter === "-") return "\\-";
      return code < 0x7f ? letter : `\\[u${code.toString(16).toUpperCase().padStart(4, "0")}]`;
    })
    .join("");
}

/** A line that begins with a dot or an apostrophe would be a macro. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const part of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + part.length > LINE) {
      lines.push(line);
      line = part;
    } else line = line === "" ? part : `${line} ${part}`;
  }
  lines.push(line);
  return lines.map((one) => (/^[.']/.test(one) ? `\\&${one}` : one));
}

/** What is shown as it is written, a line a line. */
export function example(lines: readonly string[]): string[] {
  return [".Bd -literal -offset indent", ...lines.map((line) => escaped(line).replace(/^([.'])/, "\\&$1")), ".Ed"];
}

/** The first lines of a page. */
export function pageHead(title: string, section: number, options: { date: string; version: string }): string[] {
  return [
    '.\\" Written from the program by "npm run schema".',
    `.Dd ${options.date}`,
    `.Dt ${title.toUpperCase()} ${section}`,
    `.Os "gpunode ${options.version}"`,
    // Names of variables and files are not to be broken apart.
    ".nh",
  ];
}

/** `page` with the date of `before` where nothing else is different: a page is as old as its last change. */
export function keepDate(page: string, before: string | undefined): string {
  const date = /^\.Dd .*$/m;
  const old = before === undefined ? undefined : date.exec(before)?.[0];
  return old !== undefined && before === page.replace(date, old) ? before : page;
}

/** "November 26, 2026". */
export function pageDate(at: Date): string {
  return at.toLocaleDateString("en-US", { month: "long", day: "numeric", year: "numeric", timeZone: "UTC" });
}
