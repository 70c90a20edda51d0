import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Judgement } from "../../src/doctor/check.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { readInventory } from "../../src/gpu/nvidia/inventory.ts";
import { createSmi } from "../../src/gpu/nvidia/runner.ts";
import { fixtureFiles, haveFixtures } from "../support/fixtures.ts";
import { healthy } from "./healthy.ts";

/** What nvidia-smi printed, and with which code, on machines where it could not tell of a GPU. */
const RECORDED = ["no-driver", "no-library", "nvml-init-error-stub"].flatMap((folder) =>
  fixtureFiles(`failure/${folder}`, ".stdout")
    // Those that answer a question of the daemon's; the others are of commands it does not use.
    .filter((path) => /\/(?:qx|default|driver|insufficient|gpu-is|blocked|unknown|smi-nvml)[^/]*$/.test(path))
    .map((path) => ({ name: `${folder}/${basename(path, ".stdout")}`, path })),
);

/** The judgements of a machine whose nvidia-smi prints this. */
async function judged(path: string): Promise<Record<string, Judgement>> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-rec-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const code = readFileSync(path.replace(/stdout$/, "rc"), "utf8").trim();
  const program = join(dir, "nvidia-smi");
  writeFileSync(program, `#!/bin/sh\ncat '${path}'\nexit ${code}\n`);
  chmodSync(program, 0o755);
  const inventory = await readInventory(createSmi({ path: program }));
  const good = healthy();
  const facts = { ...good, gpus: { ...good.gpus, smi: program, inventory } };
  return Object.fromEntries(CHECKS.map((check) => [check.id, check.judge(facts)]));
}

describe.runIf(haveFixtures)("a machine whose nvidia-smi said", () => {
  it.each(RECORDED.map(({ name, path }) => [name, path]))("%s is told what to do", async (name, path) => {
    expect(existsSync(path)).toBe(true);
    const said = await judged(path);
    expect(said["nvidia-smi"]?.verdict).toBe("failure");
    expect(said["nvidia-smi"]?.found).not.toMatch(/failed: no output/);
    if (/mismatch/.test(name)) {
      expect(said["driver-match"]).toMatchObject({ verdict: "failure" });
      expect(said["driver-match"]?.fix?.[0]).toEqual({ kind: "command", argv: ["reboot"] });
    } else expect(said["driver-match"]?.verdict).toBe("ok");
    if (/no-driver|no-library/.test(name)) expect(said["nvidia-smi"]?.fix?.length).toBeGreaterThan(0);
    // Nothing is called well that nobody could see.
    for (const id of ["gpu-health", "persistence-mode", "pcie-link", "compute-mode"]) {
      expect(said[id]?.verdict, id).toBe("skipped");
    }
  });
});
