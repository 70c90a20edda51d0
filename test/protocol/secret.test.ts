import { inspect } from "node:util";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { whyNotJson } from "../../src/protocol/json-text.ts";
import { HIDDEN, hiding, Secret } from "../../src/protocol/secret.ts";

const CANARY = 'canary/+&9f3é"x';

describe("a secret", () => {
  it("is shown by no way of printing it", () => {
    const secret = new Secret({ password: CANARY });
    const error = Object.assign(new Error("it failed"), { secret });
    let logged = "";
    const write = (line: string) => {
      logged += line;
    };
    const log = pino({ level: "trace" }, { write });
    log.info({ secret, nested: { secret }, err: error }, `it is ${secret}`);
    const shown = [String(secret), `${secret}`, JSON.stringify({ secret }), inspect(error, { depth: 9 }), logged];
    shown.push(JSON.stringify(Object.entries(secret)), JSON.stringify({ ...secret }));
    expect(shown.join()).not.toContain("canary");
    expect(shown.slice(0, 4).every((text) => text.includes(HIDDEN))).toBe(true);
    expect(secret.reveal()).toEqual({ password: CANARY });
  });
});

describe("words of others", () => {
  const hide = hiding([CANARY, "other-secret-12"]);

  it.each([
    ["as it is", CANARY],
    ["URL-encoded", encodeURIComponent(CANARY)],
    ["in JSON", JSON.stringify({ password: CANARY })],
    ["in base64", Buffer.from(CANARY).toString("base64")],
    ["as a login", Buffer.from(`ann:${CANARY}`).toString("base64")],
    ["as a login of a longer name", Buffer.from(`anne:${CANARY}`).toString("base64")],
    [
      "as X-Registry-Auth",
      Buffer.from(JSON.stringify({ username: "bo", password: "other-secret-12" })).toString("base64url"),
    ],
    ["twice", `${CANARY} and ${CANARY}`],
  ])("have the secret taken out: %s", (_, quoted) => {
    const told = hide(`the registry says <${quoted}>!`);
    expect(told).toContain(HIDDEN);
    expect(told.startsWith("the registry says <")).toBe(true);
    expect(told.endsWith(">!")).toBe(true);
    const decoded = [told, Buffer.from(told, "base64").toString("latin1"), told.replace(/%../g, "")].join();
    for (const part of ["canary", "secret-12", "Y2FuYXJ5", "NhbmFye", "jYW5hcn"]) expect(decoded).not.toContain(part);
  });

  it("stay as they are without it, and where the value is too short to be told from them", () => {
    const words = "could not pull a/b:1: authentication required";
    expect(hide(words)).toBe(words);
    expect(hiding(["a", "1", "", "the"])(words)).toBe(words);
  });

  it("are hidden also where one secret is the beginning of another, or is no well-formed text", () => {
    const both = hiding(["token-1", "token-1-longer", "lone\ud800surrogate"]);
    expect(both("token-1-longer token-1 lone\ud800surrogate")).toBe(`${HIDDEN} ${HIDDEN} ${HIDDEN}`);
  });
});

it("a text that is no JSON is not quoted", () => {
  for (const text of [
    CANARY,
    `{"password": ${CANARY}}`,
    `{"a": "${CANARY}`,
    `{"a": "\\q${CANARY}"}`,
    `[1] ${CANARY}`,
  ]) {
    let why = "";
    try {
      JSON.parse(text);
    } catch (error) {
      why = whyNotJson(error);
    }
    expect(why).toMatch(/^\S.{8,}/);
    expect(why).not.toContain("anary");
  }
});
