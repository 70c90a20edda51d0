import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { doctorInWords, wrapped } from "../../src/cli/doctor-view.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { doctorPage } from "../../src/doctor/page.ts";
import { type CheckReport, DOCTOR_VERSION, type Report, stepInWords } from "../../src/doctor/report.ts";
import { root } from "../cli/gpunode.ts";

function report(checks: Partial<CheckReport>[]): Report {
  const full = checks.map((check, at) => ({
    id: `check-${at}`,
    title: "All is well",
    verdict: "ok" as const,
    found: "it is",
    why: "it matters",
    fix: [],
    ...check,
  }));
  const counts = { ok: 0, note: 0, warning: 0, failure: 0, skipped: 0 };
  for (const { verdict } of full) counts[verdict] += 1;
  return {
    doctorVersion: DOCTOR_VERSION,
    at: "2026-01-02T03:04:05.000Z",
    gpunodeVersion: "0.1.0",
    machine: { hostname: "rig-01", os: "Debian GNU/Linux 12 (bookworm)", kernel: "6.1.0-32-amd64" },
    counts,
    checks: full,
  };
}

const command = "sudo gpunode doctor";
const LONG = "apt-get install linux-headers-6.1.0-33-amd64 nvidia-driver nvidia-smi firmware-misc-nonfree";

const mixed = report([
  { id: "config" },
  {
    id: "sleep",
    verdict: "warning",
    found: "a desktop puts it to sleep",
    fixable: "named",
    fix: [{ kind: "command", text: "systemctl mask sleep.target" }],
  },
  { id: "display", verdict: "note", found: "GPU 0 drives a display" },
  { id: "mig-mode", verdict: "skipped", found: "no board has it" },
  { id: "ecc-mode", verdict: "skipped", found: "no board has it" },
  {
    id: "nvidia-smi",
    verdict: "failure",
    found: "nvidia-smi was not found: install the NVIDIA driver, or set nvidia.smi to where it is",
    fix: [
      {
        kind: "advice",
        text: "it is in the component non-free of Debian's package source, which must be named in sources.list",
      },
      { kind: "command", text: LONG },
    ],
  },
  {
    id: "persistence-mode",
    verdict: "warning",
    found: "off on GPU 0",
    fixable: "safe",
    fix: [{ kind: "command", text: "nvidia-smi -pm 1" }],
  },
  { id: "engine" },
]);

describe("the report for a person", () => {
  it("has what is wrong first, what is well in a line, and ends with what can be done", () => {
    expect(
      doctorInWords(mixed, { verbose: false, command }),
    ).toBe(`rig-01: Debian GNU/Linux 12 (bookworm), kernel 6.1.0-32-amd64

failure  nvidia-smi: nvidia-smi was not found: install the NVIDIA driver, or set nvidia.smi to where it is
         why: it matters
         → it is in the component non-free of Debian's package source, which must be named in sources.list
         $ ${LONG}

warning  sleep: a desktop puts it to sleep
         why: it matters
         $ systemctl mask sleep.target

warning  persistence-mode: off on GPU 0
         why: it matters
         $ nvidia-smi -pm 1

note     display: GPU 0 drives a display
         why: it matters

skipped  mig-mode, ecc-mode: no board has it

ok       config, engine

1 failure, 2 warnings, 1 note, 2 ok, 2 skipped.
"sudo gpunode doctor --fix" mends persistence-mode.
"sudo gpunode doctor --fix sleep" mends what is only done when it is named.
`);
  });

  it.each([60, 40, 100, 300])("fits into %i columns, and breaks no command", (width) => {
    const lines = doctorInWords(mixed, { width, verbose: true, command }).split("\n");
    for (const line of lines)
      if (!line.startsWith("         $ ")) expect(line.length, line).toBeLessThanOrEqual(Math.min(width, 100));
    expect(lines).toContain(`         $ ${LONG}`);
  });

  it("tells all of what is well where that is asked for", () => {
    const words = doctorInWords(mixed, { verbose: true, command });
    expect(words).toContain("ok       config: it is\n         why: it matters\n");
    expect(words).toContain("skipped  mig-mode: no board has it\n");
  });

  it("is coloured only where colours show, and then as wide as without", () => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those are looked for
    const colours = /\u001b\[\d+m/g;
    const plain = doctorInWords(mixed, { width: 60, verbose: false, command });
    const coloured = doctorInWords(mixed, { width: 60, verbose: false, command, color: true });
    expect(plain).not.toMatch(colours);
    expect(coloured).toMatch(colours);
    expect(coloured.replace(colours, "")).toBe(plain);
  });

  it("shows nothing that could steer a terminal", () => {
    const words = doctorInWords(
      report([{ verdict: "failure", found: "a\u001b[2Jb\nc", fix: [{ kind: "command", text: "x\u001b[1m" }] }]),
      { verbose: true, command },
    );
    expect(words).not.toContain("\u001b");
    expect(words).toContain("a�[2Jb c");
  });

  it("breaks lines between words only", () => {
    expect(wrapped("one two three", 7)).toEqual(["one two", "three"]);
    expect(wrapped("unbreakable one", 5)).toEqual(["unbreakable", "one"]);
    expect(wrapped("one two", undefined)).toEqual(["one two"]);
  });
});

describe("a step as it is typed", () => {
  it("has sudo where it is needed, and quotes what a shell would read otherwise", () => {
    expect(stepInWords({ kind: "command", argv: ["ss", "-ltnp", "sport = :9835"] }, false)).toBe(
      "sudo ss -ltnp 'sport = :9835'",
    );
    expect(stepInWords({ kind: "command", argv: ["echo", "it's"] }, true)).toBe("echo 'it'\\''s'");
    expect(stepInWords({ kind: "shell", text: "curl x | sudo tee /y" }, true)).toBe("curl x | tee /y");
    const write = { kind: "write", path: "/etc/a b", text: "100 %\nit's\n", mode: 0o644 } as const;
    expect(stepInWords(write, false)).toBe("printf '100 %%\\nit'\\''s\\n' | sudo tee '/etc/a b'");
  });
});

describe("docs/doctor.md", () => {
  const page = readFileSync(join(root, "docs/doctor.md"), "utf8");

  it("has every check as the code has it (npm run schema writes it)", () => {
    expect(page).toBe(doctorPage(page));
    for (const { id } of CHECKS) expect(page).toContain(`| \`${id}\` |`);
  });
});
