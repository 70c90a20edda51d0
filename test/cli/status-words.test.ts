import { expect, it } from "vitest";
import { holdInWords } from "../../src/local/hold-words.ts";

it("a hold names its GPU once", () => {
  const [at, since] = ["2026-01-31T12:00:00.000Z", "2026-01-31T11:00:00.000Z"];
  const message = "blender (pid 12, session-3.scope) uses 9000 MiB of GPU 0";
  const hold = { cause: "foreign_process" as const, message, since, gpus: ["GPU-x"] };
  expect(holdInWords(hold, () => "0", at)).toBe("GPU 0: blender (pid 12, session-3.scope) uses 9000 MiB of it");
  // Another GPU is named: then that is what it says.
  expect(holdInWords(hold, () => "1", at)).toBe(`GPU 1: ${message}`);
});
