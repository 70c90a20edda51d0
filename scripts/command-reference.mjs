// Writes man/ and completions/ from the commands and the configuration's keys; a test keeps them equal.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

// A default that is taken from the environment of whoever runs this is nobody else's.
for (const name of Object.keys(process.env)) if (name.startsWith("GPUNODE_")) delete process.env[name];
const { commandFiles } = await import("../src/cli/reference/files.ts");

const root = resolve(import.meta.dirname, "..");
for (const [name, text] of commandFiles((name) => read(join(root, name)))) {
  mkdirSync(dirname(join(root, name)), { recursive: true });
  writeFileSync(join(root, name), text);
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
