// Writes the tables of docs/metrics.md from the code's own. `npm run schema` runs it; a test holds the page equal to it.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { metricsPage } from "../src/metrics/page.ts";

const path = join(resolve(import.meta.dirname, ".."), "docs/metrics.md");
writeFileSync(path, metricsPage(readFileSync(path, "utf8")));
