import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const script = join(root, "scripts/audit.mjs");
const INTEGRITY = `sha512-${"A".repeat(86)}==`;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "gpunode-audit-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

function audit(args: string[], env: NodeJS.ProcessEnv = process.env) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], { env });
  return { status, out: stdout.toString(), err: stderr.toString() };
}

/** A folder with one dependency, changed so. */
function auditOf(changes: { entry?: object; range?: string; npmrc?: string; path?: string }) {
  const { entry = {}, range = "^1.2.3", npmrc = "ignore-scripts=true\n", path = "node_modules/dep" } = changes;
  const dep = { version: "1.2.3", integrity: INTEGRITY, license: "MIT", ...entry };
  writeFileSync(join(dir, "package.json"), JSON.stringify({ name: "x", dependencies: { dep: range } }));
  writeFileSync(join(dir, "package-lock.json"), JSON.stringify({ packages: { "": {}, [path]: dep } }));
  writeFileSync(join(dir, ".npmrc"), npmrc);
  return audit([dir]);
}

it("what gpunode is built from has accepted licences and a hash for each package, and runs no install script", () => {
  expect(audit([])).toMatchObject({ status: 0, err: "", out: expect.stringMatching(/^audit: \d+ dependencies/) });
  expect(auditOf({})).toMatchObject({ status: 0, err: "" });
});

it.each([
  ["a licence that is not accepted", { entry: { license: "GPL-3.0-only" } }, /licence GPL-3\.0-only/],
  ["no licence", { entry: { license: undefined } }, /licence \(none\)/],
  ["one accepted for tools alone", { entry: { license: "MPL-2.0" } }, /licence MPL-2\.0/],
  ["no hash", { entry: { integrity: undefined } }, /no sha512/],
  ["a weak hash", { entry: { integrity: "sha1-AAAA" } }, /no sha512/],
  ["a place of its own", { entry: { resolved: "https://elsewhere.example/dep.tgz" } }, /elsewhere\.example/],
  ["a folder", { entry: { link: true } }, /link to a folder/],
  ["an install script", { entry: { hasInstallScript: true } }, /install script/],
  ["a repository instead of a version", { range: "github:someone/dep" }, /version from the registry/],
  ["no entry in the lockfile", { path: "node_modules/other" }, /not in package-lock\.json/],
  ["scripts switched on", { npmrc: "" }, /ignore-scripts=true/],
])("a dependency with %s is told", (_, changes, told) => {
  const { status, err } = auditOf(changes);
  expect(status).toBe(1);
  expect(err).toMatch(told);
});

it("of a choice of licences one is enough", () => {
  expect(auditOf({ entry: { license: "(GPL-2.0-only OR MIT)" } })).toMatchObject({ status: 0 });
});

it.each([
  [
    "with a grave one",
    1,
    { vulnerabilities: { dep: { name: "dep", severity: "high", range: "<2" } } },
    /dep <2 .*high/,
  ],
  ["with a small one", 0, { vulnerabilities: { dep: { name: "dep", severity: "low", range: "<2" } } }, /^$/],
  ["not asked", 0, { message: "405 Method Not Allowed" }, /WERE NOT LOOKED UP.*405 Method Not Allowed/],
])("known vulnerabilities, as npm tells them: %s", (_, status, answer, told) => {
  const npm = join(dir, "npm");
  const sbom = JSON.stringify({
    bomFormat: "CycloneDX",
    metadata: { component: { name: "folder" } },
    components: [{}],
  });
  writeFileSync(npm, `#!/bin/sh\ncase "$1" in audit) echo '${JSON.stringify(answer)}';; sbom) echo '${sbom}';; esac\n`);
  chmodSync(npm, 0o755);
  const file = join(dir, "out/sbom.json");
  const result = audit(["--ci", file], { ...process.env, PATH: `${dir}:${process.env.PATH}` });
  expect(result.status).toBe(status);
  expect(result.err).toMatch(told);
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ metadata: { component: { name: "gpunode" } } });
});
