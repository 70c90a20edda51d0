// Writes docs/configuration.md from the schema of the configuration; a test keeps the two equal.
import { writeFileSync } from "node:fs";
import { configurationReference } from "../src/config/reference.ts";

writeFileSync(new URL("../docs/configuration.md", import.meta.url), configurationReference());
