// Looks at what gpunode is built from.
//   node scripts/audit.mjs [folder]       offline, part of npm run lint: licences, integrity, where packages come from
//   node scripts/audit.mjs --ci FILE      the same; then asks the registry for known vulnerabilities, and writes an SBOM (CycloneDX)
// Exit code 1 where something is found. A registry that cannot be asked (offline, a mirror) is no finding: that is said in capitals.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

/** Licences of what ends in the bundle: all may be combined with Apache-2.0, and ask for no more than being named. */
const ACCEPTED = new Set([
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BlueOak-1.0.0",
  "ISC",
  "MIT",
  "Unlicense",
]);
/** Of tools that are not passed on. */
const ACCEPTED_FOR_TOOLS = new Set(["MPL-2.0"]);
/** Their package.json names the licence in a way npm no longer reads (`licenses`), looked up there. */
const LICENCES = { buildcheck: "MIT", "cpu-features": "MIT", ssh2: "MIT" };
/** Each is a door into the daemon, or (preact, uplot) into the browser of its owner; whoever adds one raises this number, and says why in the commit. */
const MOST_DEPENDENCIES = 15;
const NPM_MS = 60_000;

const args = process.argv.slice(2);
const sbomFile = args[0] === "--ci" ? resolve(args[1] ?? "sbom.cdx.json") : undefined;
const root = resolve(
  sbomFile === undefined ? (args[0] ?? join(import.meta.dirname, "..")) : join(import.meta.dirname, ".."),
);
const manifest = JSON.parse(read("package.json"));
const lock = JSON.parse(read("package-lock.json"));
const findings = [
  ...ofTheManifest(),
  ...Object.entries(lock.packages).flatMap(([path, entry]) => [...ofAPackage(path, entry)]),
];
if (sbomFile !== undefined) {
  findings.push(...(await knownVulnerabilities()));
  await writeSbom(sbomFile);
}
for (const finding of findings) console.error(`audit: ${finding}`);
if (findings.length > 0) process.exitCode = 1;
else {
  const direct = Object.keys(manifest.dependencies ?? {}).length;
  const all = Object.entries(lock.packages).filter(([path, { dev }]) => path !== "" && !dev).length;
  console.log(`audit: ${direct} dependencies (${all} packages with theirs), licences and integrity as they should be`);
}

function* ofTheManifest() {
  const direct = Object.entries(manifest.dependencies ?? {});
  if (direct.length > MOST_DEPENDENCIES) yield `${direct.length} dependencies, ${MOST_DEPENDENCIES} is the most`;
  if (!/^ignore-scripts=true$/m.test(read(".npmrc"))) yield ".npmrc must say ignore-scripts=true";
  for (const [name, range] of [...direct, ...Object.entries(manifest.devDependencies ?? {})]) {
    if (!/^[\^~]?\d+\.\d+\.\d+$/.test(range)) yield `${name} ${range}: expected a version from the registry`;
    const entry = lock.packages[`node_modules/${name}`];
    if (entry === undefined) yield `${name} is not in package-lock.json: run npm install`;
    // Transitive ones may have some, which never run; what we choose ourselves shall not need them.
    else if (entry.hasInstallScript && !entry.dev) yield `${name} has an install script`;
  }
}

function* ofAPackage(path, { version, integrity, resolved, link, license, dev }) {
  if (path === "") return;
  const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
  const subject = `${name} ${version}`;
  if (link) yield `${subject} is a link to a folder`;
  if (!/^sha512-[\w+/]{86}==$/.test(integrity ?? "")) yield `${subject} has no sha512 in package-lock.json`;
  if (resolved !== undefined)
    yield `${subject} is fetched from ${resolved}: only the registry npm is configured for is used`;
  const known = license ?? LICENCES[name];
  const choices = (known ?? "none").replace(/[()]/g, "").split(" OR ");
  const isFine = (one) => ACCEPTED.has(one) || (dev && ACCEPTED_FOR_TOOLS.has(one));
  if (!choices.some(isFine))
    yield `${subject} has the licence ${known ?? "(none)"}, which is not among those we accept`;
}

/** npm audit, of what is passed on. */
async function knownVulnerabilities() {
  const { stdout, stderr } = await npm("audit", "--json", "--omit", "dev");
  const report = parse(stdout);
  if (report?.vulnerabilities === undefined) {
    const why = report?.message ?? report?.error?.summary ?? stderr.split("\n").find((line) => line.trim() !== "");
    console.error(
      `audit: KNOWN VULNERABILITIES WERE NOT LOOKED UP: the registry does not tell them (${why ?? "no reason given"})`,
    );
    return [];
  }
  const found = Object.values(report.vulnerabilities);
  const grave = found.filter(({ severity }) => severity === "high" || severity === "critical");
  console.log(`audit: npm knows ${found.length} vulnerable packages, ${grave.length} of them high or critical`);
  return grave.map(
    ({ name, severity, range }) => `${name} ${range} has a vulnerability of severity ${severity}: see npm audit`,
  );
}

async function writeSbom(file) {
  const { stdout, stderr } = await npm("sbom", "--sbom-format", "cyclonedx", "--omit", "dev");
  const sbom = parse(stdout);
  if (sbom?.bomFormat !== "CycloneDX") {
    findings.push(`no SBOM could be made: ${stderr.slice(0, 500)}`);
    return;
  }
  // npm takes the folder's name.
  sbom.metadata.component.name = manifest.name;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(sbom, undefined, 2)}\n`);
  console.log(`audit: ${file} lists ${sbom.components.length} components`);
}

/** Never rejects: npm's exit code says less than its output. */
function npm(...command) {
  const options = { cwd: root, timeout: NPM_MS, killSignal: "SIGKILL", maxBuffer: 64 * 1024 * 1024 };
  return new Promise((done) => {
    execFile("npm", [...command, "--fetch-retries=0", "--fetch-timeout=20000"], options, (_error, stdout, stderr) =>
      done({ stdout, stderr }),
    );
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function read(file) {
  return readFileSync(join(root, file), "utf8");
}
