// Writes the tables of docs/health.md from the code's own. `npm run schema` runs it; a test holds the page equal to it.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { healthPage } from "../src/gpu/health-page.ts";

const path = join(resolve(import.meta.dirname, ".."), "docs/health.md");
writeFileSync(path, healthPage(readFileSync(path, "utf8")));
