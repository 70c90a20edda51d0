import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.ts";

const CANARY = "canary4b1f";
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "gpunode-config-secrets-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** All that can be printed of what the configuration is refused with. */
async function refusal(toml: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const file = join(dir, "config.toml");
  writeFileSync(file, toml);
  const error: unknown = await loadConfig({ file, env }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(Error);
  return inspect(error, { depth: 9, showHidden: true });
}

it.each([
  ["a line that is no TOML", `[coordinator]\njoin_token = "${CANARY}`],
  ["a value without quotes", `[coordinator]\njoin_token = ${CANARY}`],
  ["something after the value", `[coordinator]\njoin_token = "${CANARY}" "${CANARY}"`],
  ["a bad escape", `[coordinator]\njoin_token = "\\q${CANARY}"`],
  ["a list for a token", `[coordinator]\njoin_token = ["${CANARY}"]`],
  ["a table for a token", `[coordinator.join_token]\nvalue = "${CANARY}"`],
  ["the token under a wrong name", `[coordinator]\njoin_tokn = "${CANARY}"`],
  ["a password in the coordinator's address", `[coordinator]\nurl = "wss://me:${CANARY}@coordinator.example"`],
  ["a password with slashes in it", `[coordinator]\nurl = "wss://me:a/${CANARY}@coordinator.example"`],
  ["a token in the coordinator's address", `[coordinator]\nurl = "wss://coordinator.example/?token=${CANARY}"`],
  ["a proxy that is none", `[coordinator]\nproxy = "ftp://me:${CANARY}@proxy.example"`],
  ["a password in the metadata service's address", `[cloud]\nmetadata_url = "http://me:${CANARY}@169.254.169.254"`],
])("the message about %s does not repeat it", async (_, toml) => {
  const told = await refusal(toml);
  expect(told).toContain("config.toml");
  expect(told).not.toContain(CANARY);
});

it("nor does one about the environment", async () => {
  const url = { GPUNODE_COORDINATOR_URL: `wss://me:${CANARY}@coordinator.example` };
  expect(await refusal("", url)).not.toContain(CANARY);
  expect(await refusal("", { GPUNODE_COORDINATOR_PROXY: `socks://me:${CANARY}@proxy` })).not.toContain(CANARY);
});

it("what is right is not shown either, however the configuration is printed", async () => {
  const file = join(dir, "right.toml");
  writeFileSync(file, `[coordinator]\njoin_token = "${CANARY}"\nproxy = "http://me:${CANARY}@proxy.example"\n`);
  const config = await loadConfig({ file, env: {} });
  expect(config.coordinator.joinToken?.reveal()).toBe(CANARY);
  expect(inspect(config, { depth: 9 }) + JSON.stringify(config)).not.toContain(CANARY);
});
