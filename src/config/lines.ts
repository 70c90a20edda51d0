/**
 * Line of every key of a TOML document, by its full name. Only needed where something is wrong, so the parser that keeps
 * positions is loaded only then. An unreadable document gives an empty map.
 */
export async function linesOfKeys(toml: string): Promise<Map<string, number>> {
  const { parseTOML } = await import("toml-eslint-parser");
  const lines = new Map<string, number>();
  const note = (path: readonly (string | number)[], line: number) => {
    const name = path.join(".");
    if (!lines.has(name)) lines.set(name, line);
  };
  type Entry = Extract<ReturnType<typeof parseTOML>["body"][0]["body"][number], { type: "TOMLKeyValue" }>;
  const noteEntry = (entry: Entry, prefix: readonly (string | number)[]): void => {
    const names = entry.key.keys.map((part) => (part.type === "TOMLBare" ? part.name : part.value));
    for (let length = 1; length <= names.length; length += 1) {
      note([...prefix, ...names.slice(0, length)], entry.key.loc.start.line);
    }
    if (entry.value.type === "TOMLInlineTable") {
      for (const inner of entry.value.body) noteEntry(inner, [...prefix, ...names]);
    }
  };
  try {
    for (const part of parseTOML(toml).body[0].body) {
      if (part.type === "TOMLKeyValue") noteEntry(part, []);
      else {
        part.resolvedKey.forEach((_, index) => {
          note(part.resolvedKey.slice(0, index + 1), part.key.loc.start.line);
        });
        for (const entry of part.body) noteEntry(entry, part.resolvedKey);
      }
    }
  } catch {
    return lines;
  }
  return lines;
}
