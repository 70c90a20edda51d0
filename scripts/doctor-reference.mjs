// Writes the tables of docs/doctor.md from the checks themselves. `npm run schema` runs it; a test holds the page equal to it.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { doctorPage } from "../src/doctor/page.ts";

const path = join(resolve(import.meta.dirname, ".."), "docs/doctor.md");
writeFileSync(path, doctorPage(readFileSync(path, "utf8")));
