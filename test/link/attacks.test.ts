import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { WebSocket } from "ws";
import { agent, api, coordinator } from "../coordinator/agent-side.ts";
import { eventually, fakeCoordinator, linkState, scratch, startAgent } from "./harness.ts";

describe("what a node signed", () => {
  it("is of no use again: a recorded hello is refused at the next challenge of the same coordinator", async () => {
    const house = await coordinator();
    const side = agent(house.url);
    const hello = side.hello(await side.next("challenge"), new URL(house.url).host);
    side.send(hello);
    await side.next("welcome");
    const replay = agent(house.url);
    await replay.next("challenge");
    replay.send(hello);
    expect(await replay.next("reject")).toMatchObject({ code: "not_authenticated" });
    expect((await replay.end()).code).toBe(4401);
    // Nor a second time within the session it was made for.
    side.send(hello);
    expect(await side.next("error")).toMatchObject({ code: "bad_message" });
  });

  it.each(["its own name", "the name of the one it cheats"])(
    "is of no use elsewhere: a false coordinator that passes on a true one's challenge is refused under %s",
    async (under) => {
      const house = await coordinator({ joinTokens: ["canary-token"] });
      const trueHost = new URL(house.url).host;
      const evil = await fakeCoordinator();
      startAgent({ url: evil.url, joinToken: "canary-token" });
      const victim = await evil.next();
      const falseHost = victim.request.headers.host ?? "";
      expect(falseHost).not.toBe(trueHost);

      const onward = new WebSocket(`${house.url}/v1/agent`, ["gpunode.v1"], {
        headers: { Host: under === "its own name" ? falseHost : trueHost },
      });
      const heard: { type: string; code?: string; nonce?: string }[] = [];
      onward.on("message", (data) => heard.push(JSON.parse(String(data))));
      const closed = new Promise<number>((resolve) => onward.once("close", resolve));
      const { nonce } = await eventually(() => heard.find(({ type }) => type === "challenge"), "a challenge");
      victim.challenge({ nonce });
      onward.send(JSON.stringify(await victim.next("hello")));
      expect(await closed).toBe(4401);
      expect(heard.at(-1)).toMatchObject({ type: "reject", code: "not_authenticated" });
      expect((await api(house, "GET", "/nodes")).body.nodes).toEqual([]);
    },
  );

  it("differs where a coordinator challenges twice with the same nonce, under another name", async () => {
    const [one, other] = [await fakeCoordinator(), await fakeCoordinator()];
    const dir = scratch();
    const signatures = [];
    for (const at of [one, other]) {
      const side = startAgent({ url: at.url, dir });
      const session = await at.next();
      session.challenge({ nonce: "A".repeat(43) });
      signatures.push((await session.next("hello")).signature);
      await side.stop();
    }
    expect(signatures[0]).not.toBe(signatures[1]);
  });
});

describe("a way down", () => {
  it.each([301, 302, 307, 308])("by redirection (%i) to a place without encryption is not taken", async (status) => {
    const hits: string[] = [];
    const plain = createServer((request, response) => {
      hits.push(request.url ?? "");
      response.end();
    });
    plain.on("upgrade", (request, socket) => {
      hits.push(request.url ?? "");
      socket.destroy();
    });
    await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => new Promise<void>((resolve) => void plain.close(() => resolve())));
    const location = `ws://127.0.0.1:${(plain.address() as AddressInfo).port}/v1/agent`;
    const first = await fakeCoordinator({ refuseHttp: { status, headers: { Location: location } } });
    const side = startAgent({ url: first.url, joinToken: "canary-token" });
    expect((await linkState(side, "waiting")).lastError).toContain(`HTTP ${status}`);
    await side.stop();
    expect(hits).toEqual([]);
  });

  it("by a listener that speaks no TLS is not taken: nothing is said to it in clear", async () => {
    const heard: Buffer[] = [];
    const plain = createTcpServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (chunk) => {
        heard.push(chunk);
        socket.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
      });
    });
    await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => new Promise<void>((resolve) => void plain.close(() => resolve())));
    const url = `wss://127.0.0.1:${(plain.address() as AddressInfo).port}`;
    const side = startAgent({ url, joinToken: "canary-token" });
    expect((await linkState(side, "waiting")).lastError).toBeTruthy();
    await side.stop();
    const text = Buffer.concat(heard).toString("latin1");
    expect(text).not.toMatch(/canary|HTTP|gpunode\.v1/);
    expect(Buffer.concat(heard)[0]).toBe(0x16);
  });
});

const haveOpenssl = spawnSync("openssl", ["version"]).status === 0;

describe.runIf(haveOpenssl)("a certificate", () => {
  it.each([
    ["that has expired", { name: "localhost", days: -1 }, true, /expired/],
    ["for another name, by the CA that was given", { name: "other.example", days: 2 }, true, /another host name/],
    ["of a CA nobody named", { name: "localhost", days: 2 }, false, /coordinator\.ca_file/],
  ])("%s is refused, and NODE_TLS_REJECT_UNAUTHORIZED=0 changes nothing", async (_what, wanted, isTrusted, why) => {
    vi.stubEnv("NODE_TLS_REJECT_UNAUTHORIZED", "0");
    onTestFinished(() => void vi.unstubAllEnvs());
    const pki = authority();
    const certificate = pki.issue(wanted.name, wanted.days);
    const house = await fakeCoordinator({ tls: certificate });
    const side = startAgent({ url: house.url, joinToken: "canary", ...(isTrusted && { caFile: pki.caFile }) });
    expect((await linkState(side, "waiting")).lastError).toMatch(why);
    await side.stop();
    expect(house.sessions).toEqual([]);
  });

  it("of the CA that was given is good, and the system's do not count beside it", async () => {
    const pki = authority();
    const house = await fakeCoordinator({ tls: pki.issue("localhost", 2) });
    const side = startAgent({ url: house.url, caFile: pki.caFile });
    await (await house.next()).start();
    await linkState(side, "connected");
    const stranger = startAgent({ url: house.url, caFile: authority().caFile });
    expect((await linkState(stranger, "waiting")).lastError).toMatch(/ca_file/);
  });

  it("of the node is wanted by some coordinators: without it, or with one of another CA, it stays outside", async () => {
    const pki = authority();
    const server = pki.issue("localhost", 2);
    const ca = readFileSync(pki.caFile, "utf8");
    const house = await fakeCoordinator({ tls: { ...server, ca, requestCert: true } });
    const foreign = authority().issue("rig-01", 2);
    for (const shown of [{}, { certFile: foreign.certFile, keyFile: foreign.keyFile }]) {
      const side = startAgent({ url: house.url, caFile: pki.caFile, ...shown });
      expect((await linkState(side, "waiting")).lastError).toBeTruthy();
      await side.stop();
    }
    expect(house.sessions).toEqual([]);
    const { certFile, keyFile } = pki.issue("rig-01", 2);
    const side = startAgent({ url: house.url, caFile: pki.caFile, certFile, keyFile });
    await (await house.next()).start();
    await linkState(side, "connected");
  });
});

it("a stolen copy of the key is seen: both agents are told, and so is the operator; a new key ends it", async () => {
  const house = await coordinator();
  const [home, thief] = [scratch(), scratch()];
  const url = house.url;
  const side = startAgent({ url, dir: home });
  await linkState(side, "connected");
  copyFileSync(join(home, "identity.pem"), join(thief, "identity.pem"));
  const copy = startAgent({ url, dir: thief });
  expect(copy.nodeId).toBe(side.nodeId);
  await eventually(() => side.link.status().replacedAt, "the owner is told");
  await eventually(() => copy.link.status().replacedAt, "and the other, when the first is back");
  const problems = async () => (await api(house, "GET", "/nodes")).body.nodes[0]?.problems ?? [];
  await expect
    .poll(async () => (await problems()).map(({ code }: { code: string }) => code))
    .toContain("key_used_twice");

  const rotated = await side.link.rotateKey();
  expect(rotated).toMatchObject({ isDone: true });
  const refused = await eventually(
    () => copy.link.status().state === "refused" && copy.link.status(),
    "the copy refused",
  );
  expect(refused.lastError).toContain(side.identity.nodeId);
  await linkState(side, "connected");
});

/** A CA of its own, and what it signs. Throws where openssl fails. */
function authority() {
  const dir = scratch();
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: dir, stdio: ["ignore", "pipe", "ignore"] });
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", "-days", "2", ...newKey, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=the CA");
  return {
    caFile: join(dir, "ca.pem"),
    /** For a name, good for so many days; a negative number has passed already. */
    issue(name: string, days: number) {
      const file = (what: string) => `${name}.${what}`;
      openssl("req", ...newKey, "-keyout", file("key"), "-out", file("csr"), "-subj", `/CN=${name}`);
      writeFileSync(join(dir, "names"), `subjectAltName=DNS:${name}\n`);
      const from = ["x509", "-req", "-in", file("csr"), "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
      openssl(...from, "-days", String(days), "-out", file("pem"), "-extfile", "names");
      const [certFile, keyFile] = [join(dir, file("pem")), join(dir, file("key"))];
      return { cert: readFileSync(certFile, "utf8"), key: readFileSync(keyFile, "utf8"), certFile, keyFile };
    },
  };
}
