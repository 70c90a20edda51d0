// Writes docs/protocol.schema.json from the code's own schemas; a test keeps the two equal.
import { writeFileSync } from "node:fs";
import { protocolJsonSchema } from "../src/protocol/json-schema.ts";

writeFileSync(
  new URL("../docs/protocol.schema.json", import.meta.url),
  `${JSON.stringify(protocolJsonSchema(), null, 2)}\n`,
);
