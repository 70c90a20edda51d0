import { describe, expect, it } from "vitest";
import { createRedactor } from "../../src/cli/support/redactor.ts";
import { variablesIn, withoutTenantsWords } from "../../src/cli/support/workload-words.ts";

const redacted = (text: string) => createRedactor().redact(text).text;

describe("what looks like a secret is hidden", () => {
  it.each([
    ["http://ann:s3cret@proxy.example:3128/", "http://[hidden]@proxy.example:3128/"],
    ["wss://s3cret@c.example", "wss://[hidden]@c.example"],
    ['"HttpProxy": "http://u:s3cret@p"', '"HttpProxy": "http://[hidden]@p"'],
    ["-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\nrest", "[hidden]\nrest"],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\ns3cretcut off", "[hidden]"],
    ["Authorization: Bearer s3cret.s3cret", "Authorization: [hidden]"],
    ['{"proxy-authorization":"Basic czNjcmV0"}', '{"proxy-authorization":"[hidden]"}'],
    ["X-Registry-Auth: eyJ1c2VybmFtZSI6", "X-Registry-Auth: [hidden]"],
    ["curl -H 'bearer abcdefgh12345678'", "curl -H 'bearer [hidden]'"],
    ["id eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-x end", "id [hidden] end"],
    ["export HF=hf_abcdefghijklmnopqrst", "export HF=[hidden]"],
    [
      "gpunode coordinator serve --join-token s3cret --listen x",
      "gpunode coordinator serve --join-token [hidden] --listen x",
    ],
    ["mysql --password=s3cret db", "mysql --password=[hidden] db"],
    ["GPUNODE_COORDINATOR_JOIN_TOKEN=s3cret", "GPUNODE_COORDINATOR_JOIN_TOKEN=[hidden]"],
    ['"apiToken": "s3cret",', '"apiToken": "[hidden]",'],
    ["db_password: s3cret", "db_password: [hidden]"],
    ["AWS_SECRET_ACCESS_KEY = s3cret", "AWS_SECRET_ACCESS_KEY = [hidden]"],
    [
      "//nas/share /mnt cifs rw,username=ann,password=s3cret,uid=0 0 0",
      "//nas/share /mnt cifs rw,username=ann,password=[hidden],uid=0 0 0",
    ],
  ])("%s", (text, expected) => {
    expect(redacted(text)).toBe(expected);
  });

  it.each([
    'join_token_file = "/etc/gpunode/join-token"',
    "--token-file /root/token",
    '"hadSecrets": false',
    '"secret": null, "token": 12',
    "the join token is not valid here, or has been used up",
    "wss://coordinator.example/v1/agent connected",
    "user@1000.service and ann@example.org",
    "Environment=GPUNODE_SIM_SCENARIO=rtx4090x2",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
  ])("but not %s", (text) => {
    expect(redacted(text)).toBe(text);
  });
});

it("a secret that is known is hidden wherever it stands, encoded too, and counted by what it is", () => {
  const redactor = createRedactor();
  redactor.know("join token", "t0p/s3cret+x");
  redactor.know("join token", undefined);
  // Too short: it would stand in every other sentence.
  redactor.know("password", "abc");
  const text = `a t0p/s3cret+x b ${encodeURIComponent("t0p/s3cret+x")} c ${Buffer.from("ann:t0p/s3cret+x").toString("base64")} abc`;
  const { text: rest, hidden } = redactor.redact(text);
  expect(rest).not.toMatch(/s3cret|dDBwL3MzY3JldCt4/);
  expect(rest.endsWith(" abc")).toBe(true);
  expect(hidden).toEqual({ "join token": 3 });
});

it("of a workload's record the names of variables and the program stay, and nothing of what they were given", () => {
  const counted: Record<string, number> = {};
  const count = (kind: string, times: number) => {
    counted[kind] = (counted[kind] ?? 0) + times;
  };
  const record = {
    id: "w",
    spec: {
      image: "a/b:1",
      env: { PATH: "/x", TOKEN: "s3cret" },
      command: ["sh", "-c", "echo s3cret"],
      entrypoint: ["s3cret-T0KEN-as-program"],
      stop: { checkpoint: { exec: ["/save", "--key", "s3cret"] } },
    },
  };
  const shown = withoutTenantsWords(record, count);
  expect(JSON.stringify(shown)).not.toContain("s3cret");
  expect(shown).toMatchObject({
    id: "w",
    spec: {
      env: { PATH: "[hidden]", TOKEN: "[hidden]" },
      command: ["sh", "[hidden]", "[hidden]"],
      entrypoint: ["[hidden]"],
      stop: { checkpoint: { exec: ["/save", "[hidden]", "[hidden]"] } },
    },
  });
  expect(counted).toEqual({ "environment variable of a workload": 2, "argument of a workload's command": 5 });
  expect(variablesIn(record)).toEqual(["/x", "s3cret"]);
});

it("long texts of any kind take no longer than their length allows", () => {
  const redactor = createRedactor();
  for (let value = 0; value < 100; value += 1) redactor.know("variable", `value-number-${value}`);
  for (const piece of [
    "a",
    "-",
    "token",
    "http://",
    "=",
    "eyJ",
    "-----BEGIN PRIVATE KEY-----",
    "a.b-",
    " \n",
    "password:",
  ]) {
    const text = piece.repeat(400_000 / piece.length);
    expect(redactor.redact(text).text.length).toBeGreaterThan(0);
  }
}, 30_000);
