import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { get } from "node:https";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { coordinator, scratch } from "./agent-side.ts";

describe.runIf(spawnSync("openssl", ["version"]).status === 0)("with a certificate", () => {
  it("agents and the API are served over TLS, and nothing in clear", async () => {
    const dir = scratch();
    const [certFile, keyFile] = [join(dir, "cert.pem"), join(dir, "key.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    const made = [
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-keyout",
      keyFile,
      "-out",
      certFile,
    ];
    execFileSync("openssl", ["req", "-x509", "-days", "2", ...made, ...subject], { stdio: "ignore" });
    const [cert, key] = [readFileSync(certFile), readFileSync(keyFile)];
    const house = await coordinator({ tls: { cert, key } });
    expect([house.url, house.apiUrl]).toEqual([expect.stringMatching(/^wss:/), expect.stringMatching(/^https:/)]);

    const socket = new WebSocket(`${house.url}/v1/agent`, ["gpunode.v1"], { ca: cert });
    const challenge = await new Promise((resolve, reject) => {
      socket.once("message", resolve).once("error", reject);
    });
    expect(JSON.parse(String(challenge))).toMatchObject({ type: "challenge" });
    socket.terminate();
    const status = await new Promise((resolve, reject) => {
      get(`${house.apiUrl}/api/v1/nodes`, { ca: cert, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).on("error", reject);
    });
    expect(status).toBe(200);
    await expect(fetch(`${house.apiUrl.replace("https", "http")}/api/v1/nodes`)).rejects.toThrow();
  });
});
