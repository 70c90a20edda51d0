import { expect, it } from "vitest";
import { decoded, readTags } from "../../../src/gpu/nvidia/tags.ts";

/** What the document consists of: `+name attributes`, `-name` (`~name` where it was not closed itself), and texts in quotes. */
function read(document: string): string[] {
  const seen: string[] = [];
  readTags(document, {
    open: (name, attributes) => seen.push(`+${name}${attributes}`),
    text: (data) => seen.push(JSON.stringify(data)),
    close: (name, isImplied) => seen.push(`${isImplied ? "~" : "-"}${name}`),
  });
  return seen;
}

it("reads elements, attributes, texts and empty tags, in their order", () => {
  expect(
    read('<?xml version="1.0" ?><!DOCTYPE x SYSTEM "x.dtd"><a id="1"><b>one</b><c />two<d x="y"/><e></e></a>'),
  ).toEqual(['+a id="1"', "+b", '"one"', "-b", "+c /", "-c", '"two"', '+d x="y"/', "-d", "+e", "-e", "-a"]);
});

it("closes what was left open with what is around it, or with the end", () => {
  expect(read("<a><b><c>text</a>")).toEqual(["+a", "+b", "+c", '"text"', "~c", "~b", "-a"]);
  expect(read("<a><b>te")).toEqual(["+a", "+b", '"te"', "~b", "~a"]);
});

it("passes over a closing tag that fits nothing", () => {
  expect(read("</x><a>1</b>2</a></a>")).toEqual(["+a", '"1"', '"2"', "-a"]);
});

it.each([
  ["a name with a sign of XML's", "<n>a < b & c</n>", '"a < b & c"'],
  ["a tag that breaks off", "<n>a <b </n>", '"a <b "'],
  ["a bare sign at the end", "<n>1 <</n>", '"1 <"'],
])("takes %s for text", (_, document, text) => {
  const seen = read(document);
  expect([seen[0], seen.at(-1)]).toEqual(["+n", "-n"]);
  expect(
    seen
      .slice(1, -1)
      .map((part) => JSON.parse(part))
      .join(""),
  ).toBe(JSON.parse(text));
});

it("decodes XML's own entities and no others", () => {
  expect(decoded("a &lt;b&gt; &amp;amp; &quot;&apos; &#65;&#x42; &nbsp; & &#0;&#xD800;&#x110000;")).toBe(
    "a <b> &amp; \"' AB &nbsp; & \ufffd\ufffd\ufffd",
  );
  expect(read("<n>&lt;x&gt;</n>")).toEqual(["+n", '"<x>"', "-n"]);
});

// Each takes minutes where a reader looks at its input again and again, and milliseconds where it does not.
it.each([
  ["tags that never end", "<a "],
  ["declarations that never end", "<!"],
  ["bare signs", "<"],
  ["depth", "<a>"],
  ["depth, and closing tags of nothing", "<a></b>"],
  ["texts that no tag closes", "<a>text"],
  ["names of the wrong element", "<a>x</b>"],
])("reads two megabytes of %s in one go", (_, bit) => {
  let opened = 0;
  let closed = 0;
  readTags(bit.repeat(2_000_000 / bit.length), {
    open: () => {
      opened += 1;
    },
    text: () => undefined,
    close: () => {
      closed += 1;
    },
  });
  expect(closed).toBe(opened);
});
