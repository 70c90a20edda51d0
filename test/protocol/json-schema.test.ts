import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { protocolJsonSchema } from "../../src/protocol/json-schema.ts";
import { WORKLOAD_STATES } from "../../src/protocol/workload.ts";

const docs = new URL("../../docs/", import.meta.url);

test("docs/protocol.schema.json is what the code's schemas say (npm run schema writes it)", () => {
  const written = JSON.parse(readFileSync(new URL("protocol.schema.json", docs), "utf8"));
  expect(written).toEqual(JSON.parse(JSON.stringify(protocolJsonSchema())));
});

test("every reference in the schema leads somewhere", () => {
  const schema = JSON.stringify(protocolJsonSchema());
  const names = new Set(Object.keys(protocolJsonSchema().$defs as object));
  const references = [...schema.matchAll(/"#\/\$defs\/([^"]+)"/g)].map(([, name]) => name ?? "");
  expect(references.length).toBeGreaterThan(20);
  expect(references.filter((name) => !names.has(name))).toEqual([]);
});

test("docs/protocol.md names every frame, state and event kind", () => {
  const text = readFileSync(new URL("protocol.md", docs), "utf8");
  const frames = Object.keys(protocolJsonSchema().$defs as object).filter(
    (name) => !["agentFrame", "coordinatorFrame", "gpuTelemetry", "durableEvent", "eventBody"].includes(name),
  );
  for (const word of [...frames, ...WORKLOAD_STATES]) expect(text.toLowerCase()).toContain(word.toLowerCase());
});
