import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { entryInWords } from "../../src/cli/daemon-log.ts";
import { gpunode, node, scratch, start } from "./gpunode.ts";

/** A journalctl that does what the script says; `args` is the file it writes its own arguments to. */
function journalctl(script: string): { env: Record<string, string>; args: () => string } {
  const dir = scratch();
  const args = join(dir, "args");
  writeFileSync(join(dir, "journalctl"), `#!/bin/sh\necho "$@" > ${args}\n${script}\n`);
  chmodSync(join(dir, "journalctl"), 0o755);
  return { env: { PATH: `${dir}:/usr/bin:/bin`, TZ: "UTC" }, args: () => readFileSync(args, "utf8").trim() };
}

const entry = (MESSAGE: unknown, PRIORITY: string, second = 5) =>
  JSON.stringify({ MESSAGE, PRIORITY, __REALTIME_TIMESTAMP: `17698681850${second}0000`.slice(0, 16) });
const printing = (...lines: string[]) => `cat <<'END'\n${lines.join("\n")}\nEND`;

describe("logs without a workload", () => {
  it("is the service's log, as the daemon would have written it here", async () => {
    const { env, args } = journalctl(
      printing(entry("gpunode 0.1.0 is up: 2 GPUs", "6"), entry("it went wrong: why", "3"), entry("    at there", "3")),
    );
    const { code, out, err } = await gpunode(["logs"], env);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toBe(
      "2026-01-31 14:03:05 info  gpunode 0.1.0 is up: 2 GPUs\n2026-01-31 14:03:05 error it went wrong: why\n    at there\n",
    );
    expect(args()).toBe("--unit=gpunode.service --output=json --all --no-pager --lines=200");
  });

  it("passes on how many lines, and that it is to follow until it is interrupted", async () => {
    const gone = join(scratch(), "gone");
    const { env, args } = journalctl(
      `trap 'touch ${gone}; exit' TERM INT; ${printing(entry("one", "6"))}\nwhile :; do sleep 0.05; done`,
    );
    const child = start(node, ["src/cli/main.ts", "logs", "-f", "-n", "3"], env);
    const [first] = (await once(child.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
    expect(first.toString()).toContain("info  one");
    expect(args()).toBe("--unit=gpunode.service --output=json --all --no-pager --lines=3 --follow");
    // Its reader goes; journalctl, which writes nothing more, must not stay.
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    expect(await exited).toEqual([0, null]);
    await vi.waitFor(() => expect(existsSync(gone)).toBe(true), 10_000);
  });

  it("shows nothing that could steer the terminal, and what the journal keeps as bytes", () => {
    expect(entryInWords(entry("\u001b[2J\u0007x", "4"), {})).toMatch(/ warn {2}�\[2J�x$/);
    expect(entryInWords(entry([0x6f, 0x6b, 0x1b], "6"), {})).toMatch(/ info {2}ok�$/);
    expect(entryInWords(entry(null, "6"), {})).toContain("too long to be shown");
    expect(entryInWords("no JSON\u001b", {})).toBe("no JSON�");
    expect(entryInWords(JSON.stringify({ MESSAGE: "x" }), {})).toBe(" info  x");
    expect(entryInWords(entry("x", "2"), { color: true })).toContain("\u001b[31mfatal");
  });

  it.each([
    ["echo 'No journal files were found.' >&2; exit 0", "there is no journal on this machine"],
    ["echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1", "systemd-journal"],
    ["echo '-- No entries --' >&2", "the journal has nothing of gpunode.service"],
    ["echo 'Failed to open: strange' >&2; exit 1", "journalctl failed: Failed to open: strange"],
  ])("says plainly why there is nothing to see: %s", async (script, sentence) => {
    const { code, out, err } = await gpunode(["logs"], journalctl(script).env);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toContain(sentence);
  });

  it("says so where there is no journalctl", async () => {
    const { code, err } = await gpunode(["logs"], { PATH: "/nonexistent" });
    expect(code).toBe(1);
    expect(err).toMatch(/^gpunode: there is no journal on this machine to read: .*gpunode run/);
  });
});
