#!/usr/bin/env node
// Stands in for cosign, which Debian 12 has no package of: takes the arguments of `cosign verify --key` (docs of cosign 2 and 3),
// refuses all others, and ends as cosign does: 0 and the signed payload where the image is signed by that key, else 10 and an error.
// What is signed is not proved but listed in signed.json beside it, `{key: [digest…]}`; each call is written to calls.jsonl.
import { appendFileSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const here = dirname(process.argv[1]);
const [command, ...args] = process.argv.slice(2);
const config = join(process.env.DOCKER_CONFIG ?? "", "config.json");
// cosign reads it once for each request.
const logins = [1, 2].map(() => readFileSync(config, "utf8"));
appendFileSync(
  join(here, "calls.jsonl"),
  `${JSON.stringify({ command, args, env: process.env, login: logins[1], isFile: statSync(config).isFile() })}\n`,
);

async function fail(message, code = 1) {
  const words = `Error: ${message}\nmain.go:74: error during command execution: ${message}\n`;
  await new Promise((written) => process.stderr.write(words, written));
  process.exit(code);
}

if (command !== "verify") await fail(`unknown command "${command}" for "cosign"`);
let key;
const images = [];
while (args.length > 0) {
  const arg = args.shift();
  if (arg === "--key") key = args.shift();
  else if (arg.startsWith("-") && arg !== "--allow-http-registry") await fail(`unknown flag: ${arg}`);
  else if (!arg.startsWith("-")) images.push(arg);
}
const [, repository, digest] = /^([^@]+)@(sha256:[0-9a-f]{64})$/.exec(images[0] ?? "") ?? [];
if (images.length !== 1 || digest === undefined) await fail("the test wants one image, by its digest");
const { [key]: signed, how } = JSON.parse(readFileSync(join(here, "signed.json"), "utf8"));
if (signed === undefined) await fail(`loading public key: open ${key}: no such file or directory`);
if (how === "hang") await sleep(600_000);
if (how === "flood") {
  for (let i = 0; i < 2000; i++) process.stderr.write(`${"x".repeat(1023)}\n`);
  await fail(`\u001b[31mno matching signatures ${logins[0]}`, 12);
}
if (!signed.includes(digest)) await fail("no signatures found", 10);
process.stderr.write(
  `\nVerification for ${images[0]} --\nThe following checks were performed on each of these signatures:\n`,
);
const critical = {
  identity: { "docker-reference": repository },
  image: { "docker-manifest-digest": digest },
  type: "cosign container image signature",
};
process.stdout.write(`${JSON.stringify([{ critical, optional: {} }])}\n`);
