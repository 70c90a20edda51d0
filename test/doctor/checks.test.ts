import { describe, expect, it } from "vitest";
import { CHECKS } from "../../src/doctor/checks.ts";
import { stepInWords } from "../../src/doctor/report.ts";
import { COORDINATOR_CASES } from "./cases/coordinator.ts";
import { DISK_CASES } from "./cases/disk.ts";
import { DRIVER_CASES } from "./cases/driver.ts";
import { ENGINE_CASES } from "./cases/engine.ts";
import { GPUS_CASES } from "./cases/gpus.ts";
import { HOST_CASES } from "./cases/host.ts";
import { NETWORK_CASES } from "./cases/network.ts";
import { OWN_CASES } from "./cases/own.ts";
import { TOOLKIT_CASES } from "./cases/toolkit.ts";
import { healthy } from "./healthy.ts";

const CASES = [
  ...OWN_CASES,
  ...DRIVER_CASES,
  ...GPUS_CASES,
  ...ENGINE_CASES,
  ...TOOLKIT_CASES,
  ...DISK_CASES,
  ...NETWORK_CASES,
  ...COORDINATOR_CASES,
  ...HOST_CASES,
];

const byId = new Map(CHECKS.map((check) => [check.id, check]));

describe("on a machine without a fault", () => {
  it.each(CHECKS.map((check) => [check.id, check] as const))("%s is content", (_, check) => {
    const { verdict, found, fix } = check.judge(healthy());
    expect({ verdict, fix }, found).toEqual({ verdict: "ok" });
  });
});

describe("what is wrong is found", () => {
  it.each(CASES.map((one) => [one.id, one.when, one] as const))("%s: %s", (_, __, one) => {
    const good = healthy();
    const judgement = byId.get(one.id)?.judge({ ...good, ...one.facts(good) });
    expect(judgement).toMatchObject({ verdict: one.verdict, found: expect.stringMatching(one.found) as string });
    const steps = (judgement?.fix ?? []).map((step) => stepInWords(step, true));
    if (one.fix !== undefined)
      expect(
        steps.filter((step) => one.fix?.test(step)),
        steps.join("\n"),
      ).toHaveLength(1);
    expect(judgement?.auto).toBe(one.auto);
  });

  it("by every check, each of which has a case here", () => {
    const bad = new Set(CASES.filter(({ verdict }) => verdict !== "ok" && verdict !== "skipped").map(({ id }) => id));
    expect(CHECKS.map(({ id }) => id).filter((id) => !bad.has(id))).toEqual([]);
  });
});

describe("every check", () => {
  it("has an id of its own, which scripts can type", () => {
    expect(byId.size).toBe(CHECKS.length);
    for (const { id } of CHECKS) expect(id).toMatch(/^[a-z]+(-[a-z]+)*$/);
  });

  it.each(CHECKS.map((check) => [check.id, check] as const))(
    "%s is skipped, and says why, where nothing is known",
    (_, check) => {
      const missing = { missing: "it did not answer within 2 s" };
      const nothing = Object.fromEntries(Object.keys(healthy()).map((name) => [name, missing]));
      expect(check.judge(nothing)).toEqual({ verdict: "skipped", found: missing.missing });
      expect(check.judge({}).verdict).toBe("skipped");
    },
  );

  it("makes systemd reload by itself only where no running work loses its GPUs by it", () => {
    const reloads = /^(?:systemctl (?:enable|daemon-reload|mask)|timedatectl set-ntp)\b/;
    const trapped = { ...healthy().toolkit, unlinked: ["/dev/nvidia0"] };
    const done = (one: (typeof CASES)[number], more: object) => {
      const good = healthy();
      const { auto, fix = [] } = byId.get(one.id)?.judge({ ...good, ...one.facts(good), ...more }) ?? {};
      const steps = fix.flatMap((step) => (step.kind === "command" ? [stepInWords(step, true)] : []));
      return auto === undefined ? [] : steps.filter((step) => reloads.test(step));
    };
    expect(new Set(CASES.filter((one) => done(one, {}).length > 0).map(({ id }) => id))).toEqual(
      new Set(["service", "persistence-mode", "clock", "sleep"]),
    );
    expect(CASES.flatMap((one) => done(one, { toolkit: trapped }))).toEqual([]);
  });

  it("that mends by itself has something to do, and touches nothing but by commands and files", () => {
    for (const one of CASES.filter(({ auto }) => auto !== undefined)) {
      const good = healthy();
      const { fix = [] } = byId.get(one.id)?.judge({ ...good, ...one.facts(good) }) ?? {};
      const kinds = fix.map(({ kind }) => kind);
      expect(
        kinds.some((kind) => kind === "command" || kind === "write"),
        one.when,
      ).toBe(true);
      // A shell line would be left out, and half of it done.
      expect(kinds, one.when).not.toContain("shell");
      const done = fix.filter(({ kind }) => kind !== "advice").map((step) => stepInWords(step, true));
      expect(done.join("\n")).not.toMatch(/\breboot\b|restart docker|gpu-reset|rm /);
    }
  });
});
