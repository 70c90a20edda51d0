/** Told what a document consists of, in its order. */
export interface TagHandler {
  /** `attributes` as they stand in the tag. */
  open(name: string, attributes: string): void;
  /** Between two tags, with its entities decoded. Not called for nothing. */
  text(data: string): void;
  /** `isImplied`: it was not closed itself, but what is around it was, or the document is over. */
  close(name: string, isImplied: boolean): void;
}

/**
 * An element with nothing but text in it, as most are; an opening, closing or empty tag; a declaration. Each alternative ends at the next
 * `<` at the latest, so that no input is read more than a few times over.
 */
const TAG = /<([A-Za-z_][\w.-]*)>([^<]*)<\/\1>|<(\/?)([A-Za-z_][\w.-]*)([\s/][^<>]*)?>|<[!?][^<>]*>/g;

/**
 * Reads the tags and texts of a document of nvidia-smi: XML without namespaces, comments or CDATA, and with what no XML allows, for names of
 * processes come as they are. Never throws: what is no tag is text, a closing tag of nothing is passed over.
 *
 * Made of one regular expression, for those are machine code also where V8 compiles no JavaScript (docs/decisions/023): the document of
 * eight GPUs takes a sixth of the time that a parser of characters takes, and it lies in the way of every start.
 */
export function readTags(document: string, handler: TagHandler): void {
  const open: string[] = [];
  /** How often each name is open: a closing tag that fits none must not be looked for in vain. */
  const count = new Map<string, number>();
  const close = (name: string) => {
    if ((count.get(name) ?? 0) === 0) return;
    for (;;) {
      const innermost = open.pop() ?? "";
      count.set(innermost, (count.get(innermost) ?? 0) - 1);
      handler.close(innermost, innermost !== name);
      if (innermost === name) return;
    }
  };
  let from = 0;
  TAG.lastIndex = 0;
  for (let found = TAG.exec(document); found !== null; found = TAG.exec(document)) {
    if (found.index > from) handler.text(decoded(document.slice(from, found.index)));
    from = TAG.lastIndex;
    const [, leaf, value = "", slash, name, attributes = ""] = found;
    if (leaf !== undefined) {
      handler.open(leaf, "");
      if (value !== "") handler.text(decoded(value));
      handler.close(leaf, false);
    } else if (name !== undefined && slash === "/") {
      close(name);
    } else if (name !== undefined) {
      handler.open(name, attributes);
      if (attributes.endsWith("/")) handler.close(name, false);
      else {
        open.push(name);
        count.set(name, (count.get(name) ?? 0) + 1);
      }
    }
  }
  if (from < document.length) handler.text(decoded(document.slice(from)));
  while (open.length > 0) handler.close(open.pop() ?? "", true);
}

const NAMED: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** The text with XML's five entities and numbered characters as what they stand for; others stay as they are. */
export function decoded(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#(\d{1,9})|#x([0-9a-fA-F]{1,8})|(amp|lt|gt|quot|apos));/g, (_, decimal, hex, name) =>
    name !== undefined
      ? (NAMED[name] ?? "")
      : character(decimal !== undefined ? Number(decimal) : Number.parseInt(hex, 16)),
  );
}

function character(code: number): string {
  const isOne = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  return isOne ? String.fromCodePoint(code) : "\ufffd";
}
