import { expect, test } from "vitest";
import { type Description, exposition, type Sample } from "../../src/metrics/text.ts";
import { parseExposition } from "./parsed.ts";

const gauge = (name: string, help = "what it is"): Description => ({ name, type: "gauge", help, labels: ["of"] });
const one = (value: number, labels: Sample["labels"] = {}): Sample => ({ labels, value });

test("each family is named and described once, in the order given, before its series", () => {
  const text = exposition([
    [gauge("b"), [one(2, { of: "x" }), one(3, { of: "y" })]],
    [{ ...gauge("a_total"), type: "counter" }, [one(1)]],
  ]);
  expect(text).toBe(
    '# HELP b what it is\n# TYPE b gauge\nb{of="x"} 2\nb{of="y"} 3\n# HELP a_total what it is\n# TYPE a_total counter\na_total 1\n',
  );
});

test("what is not known is not there: no family without a series, no value that is no number", () => {
  expect(exposition([[gauge("a"), []]])).toBe("");
  expect(exposition([[gauge("a"), [one(Number.NaN)]]])).toBe("");
  expect(exposition([[gauge("a"), [one(Number.NaN, { of: "x" }), one(0, { of: "y" })]]])).toContain('\na{of="y"} 0\n');
});

test("numbers are what they are, however large or small", () => {
  for (const value of [
    0,
    -0,
    1,
    -1.5,
    1e300,
    5e-324,
    2 ** 53,
    1.98e9,
    0.07,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
  ]) {
    const [series] =
      parseExposition(exposition([[gauge("a"), [one(value)]]]))
        .get("a")
        ?.series.values() ?? [];
    expect(series?.value === value).toBe(true);
  }
});

test.each([
  ["plain", "NVIDIA H100 80GB HBM3"],
  ["quotes", 'a "GPU" called "x"'],
  ["back slashes", "C:\\Windows\\System32\\n\\"],
  ["line feeds", "two\nlines\n"],
  ["a whole exposition", '"} 1\n# TYPE up gauge\nup{x="'],
  ["braces and commas", "{a=b},{c}"],
  ["other scripts", "GPU ユニット 🜁 é"],
  ["nothing", ""],
])("a label of %s is read as it was written", (_, value) => {
  const [series] =
    parseExposition(exposition([[gauge("a"), [one(1, { of: value })]]]))
      .get("a")
      ?.series.values() ?? [];
  expect(series?.labels).toEqual({ of: value });
});

test("control characters and halves of characters are replaced, and what is endless is cut", () => {
  const read = (value: string) =>
    [
      ...(parseExposition(exposition([[gauge("a"), [one(1, { of: value })]]]))
        .get("a")
        ?.series.values() ?? []),
    ][0]?.labels.of;
  expect(read("\0a\x1b[31m\r\t\x7f\x9b")).toBe("\ufffda\ufffd[31m\ufffd\ufffd\ufffd\ufffd");
  expect(read("a\ud800b")).toBe("a\ufffdb");
  expect(read("x".repeat(100_000))?.length).toBeLessThanOrEqual(512);
  expect(read("🜁".repeat(100_000))).toMatch(/^(🜁)+$/u);
});

test("a help of several lines is one line", () => {
  expect(exposition([[gauge("a", "one\ntwo \\ three"), [one(1)]]])).toContain("# HELP a one\\ntwo \\\\ three\n");
});

test("of two series with the same labels the first counts", () => {
  const text = exposition([[gauge("a"), [one(1, { of: "x" }), one(2, { of: "x" })]]]);
  expect([...(parseExposition(text).get("a")?.series.values() ?? [])].map(({ value }) => value)).toEqual([1]);
});
