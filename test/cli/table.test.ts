import stringWidth from "string-width";
import { expect, it } from "vitest";
import { renderTable } from "../../src/cli/table.ts";
import { cut, widthOf } from "../../src/cli/text-width.ts";
import { between, duration, usedOf } from "../../src/local/in-words.ts";

const columns = [{ title: "N", align: "right" as const }, { title: "NAME", shrinks: true as const }, { title: "END" }];

it("aligns, and cuts nothing where the width is unknown", () => {
  expect(
    renderTable(
      columns,
      [
        ["1", "short", "x"],
        ["10", "a name of some length", ""],
      ],
      {},
    ),
  ).toBe(" N  NAME                   END\n 1  short                  x\n10  a name of some length\n");
});

it("cuts what may be cut, down to eight characters, on a narrow terminal", () => {
  expect(renderTable(columns, [["10", "a name of some length", "end"]], { width: 20 })).toBe(
    " N  NAME         END\n10  a name of …  end\n",
  );
  expect(renderTable(columns, [["10", "a name of some length", "end"]], { width: 5 })).toBe(
    " N  NAME      END\n10  a name …  end\n",
  );
});

it("a colour does not count as width, and foreign control characters are shown, not obeyed", () => {
  expect(renderTable(columns, [["1", { text: "ok", style: "green" }, "\u001b[2Jx\ny"]], { color: true })).toBe(
    "\u001b[1mN\u001b[22m  \u001b[1mNAME\u001b[22m  \u001b[1mEND\u001b[22m\n1  \u001b[32mok\u001b[39m    \ufffd[2Jx y\n",
  );
});

it("figures in words", () => {
  expect([0, 59_400, 60_000, 7_500_000, 86_400_000, 180_000_000].map(duration)).toEqual([
    "0 s",
    "59 s",
    "1 min",
    "2 h 5 min",
    "1 d",
    "2 d 2 h",
  ]);
  expect(between(undefined, "2026-01-01T00:00:00.000Z")).toBe("");
  expect([
    usedOf(512, 24_576),
    usedOf(undefined, 24_576),
    usedOf(undefined, 512),
    usedOf(undefined, undefined),
  ]).toEqual(["0.5/24.0 GiB", "24.0 GiB", "512 MiB", "-"]);
});

it("measures what a terminal shows: wide letters take two columns, accents none", () => {
  expect(["abc", "日本", "e\u0301", "👩‍💻", "▁▂█", "é°×→…"].map(widthOf)).toEqual([3, 4, 1, 2, 3, 5]);
  expect(
    renderTable(
      [{ title: "NAME" }, { title: "END" }],
      [
        ["日本", "x"],
        ["abc", "y"],
      ],
      {},
    ),
  ).toBe("NAME  END\n日本  x\nabc   y\n");
  expect([5, 4, 3, 2, 1, 0].map((room) => cut("日本語", room))).toEqual(["日本…", "日…", "日…", "…", "…", ""]);
});

it("what is measured without looking closely is measured right", () => {
  const wrong: string[] = [];
  for (let code = 0x20; code < 0x2600; code += 1) {
    const character = String.fromCodePoint(code);
    if (!/\p{Cc}/u.test(character) && widthOf(character) !== stringWidth(character)) wrong.push(code.toString(16));
  }
  expect(wrong).toEqual([]);
});
