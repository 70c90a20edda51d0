import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { FAMILIES } from "../../src/metrics/families.ts";
import { DCGM_BOARD, EXPORTER_BOARD, familiesIn, ownBoard, queriesOf } from "../metrics/boards.ts";
import { havePrometheus, promtool, whyNoPrometheus } from "../support/prometheus.ts";

const folder = resolve(import.meta.dirname, "../../examples/prometheus");
const text = (name: string) => readFileSync(join(folder, name), "utf8");
const told = new Set(FAMILIES.map(({ name }) => name));
const TESTS = ["gpunode.rules.test.yml", "gpunode.rules.days.test.yml"];
/** Made by Prometheus itself. */
const ITS_OWN = new Set(["up"]);

const alerts = [...text("gpunode.rules.yml").matchAll(/- alert: (\w+)\n([\s\S]*?)(?=\n {6}- alert: |$)/g)].map(
  ([, name = "", rule = ""]) => ({ name, rule }),
);

describe("the alert rules", () => {
  test("ask for nothing but what is told", () => {
    expect(alerts.length).toBeGreaterThan(20);
    for (const { name, rule } of alerts) {
      const expression = /expr: ([\s\S]*?)\n {8}(?:for|labels):/.exec(rule)?.[1] ?? "";
      const families = familiesIn(expression);
      expect(families.length + (/\bup\{/.test(expression) ? 1 : 0), name).toBeGreaterThan(0);
      for (const family of families) expect(told.has(family) || ITS_OWN.has(family), `${name}: ${family}`).toBe(true);
    }
  });

  test("have a case each that raises them", () => {
    const cases = TESTS.map(text).join("\n");
    for (const { name } of alerts)
      expect(cases, name).toMatch(
        new RegExp(`alertname: ${name}\\n +eval_time: \\S+\\n +exp_alerts:\\n +- exp_labels`),
      );
  });

  describe.runIf(havePrometheus)(`promtool${whyNoPrometheus}`, () => {
    test.each([
      ["takes the rules", ["check", "rules", join(folder, "gpunode.rules.yml")]],
      ["takes the configuration", ["check", "config", join(folder, "prometheus.yml")]],
      ["finds that they are raised when they should be", ["test", "rules", ...TESTS.map((name) => join(folder, name))]],
    ])("%s", async (_, args) => {
      const { code, said } = await promtool(args);
      expect(code, said).toBe(0);
      expect(said).toContain("SUCCESS");
    });
  });
});

describe("the board", () => {
  const board = ownBoard();

  test("asks for nothing but what is told", () => {
    const queries = queriesOf(board);
    expect(queries.length).toBeGreaterThan(35);
    for (const { panel, expression } of queries) {
      expect(familiesIn(expression).length, panel).toBeGreaterThan(0);
      for (const family of familiesIn(expression)) expect(told, panel).toContain(family);
    }
    for (const { name, definition = "" } of board.templating.list)
      for (const family of familiesIn(definition)) expect(told, name).toContain(family);
  });

  test("takes its data from the source that is chosen, and has no panel upon another", () => {
    expect(board.schemaVersion).toBeGreaterThanOrEqual(39);
    expect(board.templating.list[0]).toMatchObject({ name: "datasource", type: "datasource", query: "prometheus" });
    const isCovered = new Set<string>();
    for (const { title, type, datasource, gridPos } of board.panels) {
      if (type !== "row")
        expect(datasource, title).toMatchObject({
          type: "prometheus",
          uid: expect.stringMatching(/^\$\{datasource\}$/),
        });
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(isCovered.has(`${x} ${y}`), `${title} at ${x} ${y}`).toBe(false);
          isCovered.add(`${x} ${y}`);
        }
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
    }
    expect(new Set(board.panels.map(({ id }) => id)).size).toBe(board.panels.length);
  });
});

describe("boards that are there already", () => {
  test.each([DCGM_BOARD, EXPORTER_BOARD])("$title finds what it asks for", ({ told: wanted, notTold }) => {
    for (const name of wanted) expect(told).toContain(name);
    for (const name of Object.keys(notTold)) expect(told).not.toContain(name);
  });
});
