import { describe, expect, test } from "vitest";
import { bootSystemd, canBootSystemd } from "../support/booted-systemd.ts";

describe.runIf(canBootSystemd)("the machine these tests boot", () => {
  test("is a fresh one each time, and leaves nothing behind", { timeout: 180_000 }, async () => {
    for (let boot = 0; boot < 2; boot += 1) {
      const machine = await bootSystemd([]);
      try {
        expect(await machine.attempt("test", "-e", "/etc/was-here")).toMatchObject({ code: 1 });
        await machine.write("/etc/was-here", "");
        expect(machine.leftovers().join()).toMatch(/cgroup.*process \d+/s);
      } finally {
        await machine[Symbol.asyncDispose]();
      }
      expect(machine.leftovers()).toEqual([]);
    }
  });

  test("is off when its systemd says so", { timeout: 180_000 }, async () => {
    await using machine = await bootSystemd([]);
    await machine.attempt("systemctl", "--no-block", "poweroff");
    await machine.off;
  });
});
