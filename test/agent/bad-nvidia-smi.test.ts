import { writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { haveEngine } from "../support/engine.ts";
import { Rig } from "./rig.ts";

const healthy = { driver: "580.105.08", gpus: [{ model: "T4" }] };

describe.runIf(haveEngine)("nvidia-smi at its worst", () => {
  test("absent: the daemon is up and says what to install", async () => {
    await using rig = new Rig({ smi: "/no/such/nvidia-smi" });
    rig.start();
    const { gpus, problems } = await rig.until(({ problems }) => problems.length > 0);
    expect(gpus).toEqual([]);
    expect(problems[0]).toMatchObject({ code: "not_found", message: expect.stringContaining("/no/such/nvidia-smi") });
  });

  test.each([
    ["driverMissing", "no_driver"],
    ["libraryMissing", "no_library"],
    ["mismatch", "driver_mismatch"],
    ["noDevices", "no_devices"],
    ["halfDocument", "unreadable"],
  ])("%s: the daemon says why, and recovers by itself when it is mended", async (kind, code) => {
    await using rig = new Rig({ scenario: JSON.stringify({ ...healthy, faults: [{ kind }] }) });
    rig.start();
    const broken = await rig.until(({ problems }) => problems.length > 0);
    expect(broken.problems.map((problem) => problem.code)).toContain(code);
    expect(rig.gpunode("status").stdout).toContain(broken.problems[0]?.message.slice(0, 60));
    writeFileSync(rig.scenario, JSON.stringify(healthy));
    const mended = await rig.until(({ gpus, problems }) => gpus.length === 1 && problems.length === 0);
    expect(mended.gpus[0]?.health.status).toBe("healthy");
  });

  test("hanging: the daemon is up all the same", async () => {
    await using rig = new Rig({ scenario: JSON.stringify({ ...healthy, faults: [{ kind: "hang" }] }) });
    rig.start();
    const { problems } = await rig.until(({ problems }) => problems.length > 0);
    expect(problems[0]?.code).toBe("timeout");
  });
});
