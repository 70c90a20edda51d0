// Holds the import rules of the rooms (docs/architecture.md): each folder of src/ imports only what its row allows,
// and no file imports itself by a detour. Type-only imports are held to the same rows, plus those in TYPES_ONLY.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { parseSync } from "oxc-parser";

const root = resolve(import.meta.dirname, "..");
const src = join(root, "src");

/** room → rooms whose files it may import, or single files. Every room may import its own. */
const MAY_IMPORT = {
  protocol: [],
  gpu: ["protocol"],
  host: ["protocol"],
  engine: ["protocol"],
  store: ["protocol"],
  placement: ["protocol"],
  workload: ["protocol", "placement"],
  isolation: ["protocol"],
  preemption: ["protocol", "workload"],
  telemetry: ["protocol"],
  link: ["protocol"],
  config: ["protocol"],
  local: ["protocol"],
  metrics: ["protocol", "gpu"],
  coordinator: ["protocol", "placement", "store"],
  demo: ["protocol", "coordinator"],
  doctor: ["protocol", "gpu", "host", "engine", "workload", "isolation", "link", "local", "config"],
  cli: [
    "protocol",
    "local",
    "config",
    "gpu",
    "host",
    "isolation",
    "link",
    "store",
    "coordinator",
    "demo",
    "doctor",
    "agent.ts",
    "agent/asked-gpus.ts",
  ],
};

/** room → rooms whose types it may name, because they declare the door it fills. */
const TYPES_ONLY = {
  engine: ["workload", "isolation"],
  store: ["workload", "telemetry"],
  isolation: ["workload"],
  local: ["link", "telemetry", "workload"],
  metrics: ["link", "local"],
};

/** The composition root knows all rooms: agent.ts, and the folder of its parts. */
const FREE = new Set(["agent.ts", "agent"]);

const complaints = [];
const graph = new Map();

for (const path of walk(src)) {
  const file = relative(src, path);
  const room = file.includes("/") ? file.slice(0, file.indexOf("/")) : file;
  const targets = [];
  for (const { specifier, typeOnly } of importsOf(path)) {
    if (!specifier.startsWith(".")) continue;
    const target = relative(src, resolve(dirname(path), specifier));
    if (!typeOnly) targets.push(target);
    const other = target.includes("/") ? target.slice(0, target.indexOf("/")) : target;
    if (other === room || FREE.has(room)) continue;
    const allowed = MAY_IMPORT[room];
    if (allowed === undefined) complaints.push(`${file}: the room "${room}" has no row in scripts/check-rooms.mjs`);
    else if (
      !allowed.includes(other) &&
      !allowed.includes(target) &&
      !(typeOnly && (TYPES_ONLY[room] ?? []).includes(other))
    ) {
      complaints.push(
        `${file}: the room "${room}" may not import ${typeOnly ? "types of " : ""}"${other}" (${target})`,
      );
    }
  }
  graph.set(file, targets);
}
complaints.push(...cycles());

if (complaints.length > 0) {
  console.error(complaints.join("\n"));
  process.exit(1);
}
console.log(`rooms: ${graph.size} files, imports as the table says, no cycles`);

function* walk(dir) {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else if (/\.tsx?$/.test(entry.name)) yield path;
  }
}

/** Static, dynamic and re-exporting imports of a file, with whether they vanish when types are stripped. */
function importsOf(path) {
  const text = readFileSync(path, "utf8");
  const { module } = parseSync(path, text);
  const found = [];
  for (const { moduleRequest, entries, start } of module.staticImports) {
    const typeOnly =
      /^import\s+type\b/.test(text.slice(start)) || (entries.length > 0 && entries.every((entry) => entry.isType));
    found.push({ specifier: moduleRequest.value, typeOnly });
  }
  for (const { entries } of module.staticExports) {
    for (const { moduleRequest, isType } of entries) {
      if (moduleRequest) found.push({ specifier: moduleRequest.value, typeOnly: isType });
    }
  }
  for (const { moduleRequest } of module.dynamicImports) {
    const quoted = text.slice(moduleRequest.start, moduleRequest.end);
    if (/^["'].*["']$/.test(quoted)) found.push({ specifier: quoted.slice(1, -1), typeOnly: false });
  }
  return found;
}

function cycles() {
  const found = [];
  const state = new Map();
  const visit = (file, path) => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      found.push(`import cycle: ${[...path.slice(path.indexOf(file)), file].join(" → ")}`);
      return;
    }
    state.set(file, "open");
    for (const target of graph.get(file) ?? []) visit(target, [...path, file]);
    state.set(file, "done");
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}
