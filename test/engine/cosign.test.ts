import { readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { cosignCheck } from "../../src/engine/cosign.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { cosignStandIn } from "../support/cosign.ts";
import { neverAborted, refusal } from "./harness.ts";

const DIGEST = `sha256:${"5".repeat(64)}`;
const OTHER = `sha256:${"6".repeat(64)}`;
const IMAGE = `registry.example/team/app@${DIGEST}`;
const [FIRST, SECOND] = ["/k/first.pub", "/k/second.pub"] as const;
const signal = neverAborted();

/** Logins that were handed over and not taken away. */
const left = () => readdirSync("/dev/shm").filter((name) => name.startsWith("gpunode-"));

function check(cosign: { path: string }, changes: { keys?: string[]; timeoutMs?: number } = {}) {
  const env = { PATH: cosign.path, HTTPS_PROXY: "http://proxy", GPUNODE_COORDINATOR_JOIN_TOKEN: "canary" };
  return cosignCheck({ keys: [FIRST, SECOND], cacheDir: "/nowhere/sigstore", env, ...changes });
}

it("one key of several is enough; cosign is asked for the very digest, and given no more than it needs", async () => {
  using cosign = cosignStandIn();
  cosign.sign({ [FIRST]: [OTHER], [SECOND]: [DIGEST] });
  await check(cosign)(IMAGE, { signal });
  expect(cosign.calls().map(({ command, args }) => [command, ...args])).toEqual([
    ["verify", "--key", FIRST, IMAGE],
    ["verify", "--key", SECOND, IMAGE],
  ]);
  const { env, login } = cosign.calls()[0] ?? {};
  expect(env).toMatchObject({ LC_ALL: "C", HTTPS_PROXY: "http://proxy", TUF_ROOT: "/nowhere/sigstore" });
  expect(JSON.stringify(env)).not.toContain("canary");
  expect(login).toBe("{}");
});

it("an image without a signature is refused by the rule's name, with cosign's own words", async () => {
  using cosign = cosignStandIn();
  cosign.sign({ [FIRST]: [OTHER], [SECOND]: [] });
  const refused = await refusal(check(cosign)(IMAGE, { signal }));
  expect(refused.code).toBe("image_not_allowed");
  expect(refused.message).toBe(
    `policy.cosign_keys: no signature of ${IMAGE} by ${FIRST} or ${SECOND} was found (cosign: no signatures found)`,
  );
  const noKey = await refusal(check(cosign, { keys: ["/k/gone.pub"] })(IMAGE, { signal }));
  expect(noKey.message).toContain("/k/gone.pub: no such file");
});

it("without cosign nothing runs, and the message says what to do", async () => {
  using cosign = cosignStandIn();
  // A relative folder in PATH would be whoever's may write there.
  const refused = await refusal(check({ path: "/usr/nowhere:.:bin" })(IMAGE, { signal }));
  expect(refused).toMatchObject({ code: "policy_denied", message: expect.stringMatching(/install cosign/) });
  expect(cosign.calls()).toEqual([]);
});

it("HTTP is allowed for a registry on this machine, and for no other", async () => {
  using cosign = cosignStandIn();
  cosign.sign({ [FIRST]: [DIGEST] });
  const hosts = ["127.0.0.1:5000", "localhost:5000", "localhost", "127.example", "127.0.0.1.example", "10.0.0.1:5000"];
  for (const host of hosts) await check(cosign)(`${host}/app@${DIGEST}`, { signal });
  const allowed = cosign.calls().map(({ args }) => args.includes("--allow-http-registry"));
  expect(allowed).toEqual([true, true, true, false, false, false]);
});

it.each([
  ["a password", { username: "ann", password: "canary-password" }, { auth: btoa("ann:canary-password") }],
  ["a token", { identityToken: "canary-token" }, { identitytoken: "canary-token" }],
])("a private image's login is handed over in memory, in no argument or variable: %s", async (_, auth, entry) => {
  using cosign = cosignStandIn();
  cosign.sign({ [FIRST]: [DIGEST] });
  const before = left();
  await check(cosign)(IMAGE, { auth: new Secret(auth), signal });
  const [call] = cosign.calls();
  expect(JSON.parse(call?.login ?? "")).toEqual({ auths: { "registry.example": entry } });
  expect(call?.isFile).toBe(true);
  expect(JSON.stringify([call?.args, call?.env])).not.toContain("canary");
  cosign.sign({ [FIRST]: [], [SECOND]: [] }, "flood");
  const refused = await refusal(check(cosign)(IMAGE, { auth: new Secret(auth), signal }));
  // It said two megabytes, colours and the login.
  expect(refused.message).toContain("no matching signatures");
  expect(refused.message).not.toMatch(/\p{Cc}|canary|Y2FuYXJ5/u);
  expect(refused.message.length).toBeLessThan(1000);
  expect(left()).toEqual(before);
});

it("a cosign that hangs is ended after its time, and with the signal", async () => {
  using cosign = cosignStandIn();
  cosign.sign({ [FIRST]: [DIGEST], [SECOND]: [DIGEST] }, "hang");
  const refused = await refusal(check(cosign, { keys: [FIRST], timeoutMs: 1000 })(IMAGE, { signal }));
  expect(refused.message).toContain("SIGKILL, at the latest after 1 s");
  const stop = new AbortController();
  const asked = check(cosign)(IMAGE, { signal: stop.signal });
  setTimeout(() => stop.abort(new Error("not wanted any more")), 300);
  await expect(asked).rejects.toThrow("not wanted any more");
  expect(left()).toEqual([]);
});
