import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { type CoordinatorOptions, startCoordinator } from "../../src/coordinator/server.ts";
import { haveOpenssl, makeCertificate } from "../support/certificate.ts";
import { connectProxy } from "../support/connect-proxy.ts";
import { type AtTerminal, atTerminal, haveTerminal } from "../support/terminal.ts";
import { gpunode, node, outcome, root, scratch, start } from "./gpunode.ts";

const TOKEN = "t0ken-nobody-may-see";

async function coordinator(options: Partial<CoordinatorOptions> = {}) {
  const listen = { host: "127.0.0.1", port: 0 };
  const started = await startCoordinator({ listen, stateDir: scratch(), joinTokens: [TOKEN], ...options });
  onTestFinished(() => started.close());
  return started;
}

/** A machine's own folder: where it is configured, and a token as somebody was given it. */
function machine(text?: string) {
  const dir = scratch();
  const [file, given] = [join(dir, "config.toml"), join(dir, "given")];
  if (text !== undefined) writeFileSync(file, text, { mode: 0o640 });
  writeFileSync(given, `${TOKEN}\n`, { mode: 0o600 });
  const read = () => (existsSync(file) ? readFileSync(file, "utf8") : undefined);
  const enroll = (...args: string[]) => gpunode(["enroll", "--config", file, ...args], { TZ: "UTC" });
  return { dir, file, given, tokenFile: join(dir, "join-token"), read, enroll, files: () => readdirSync(dir).sort() };
}

/** Process ids of the commands that were started with this file. */
function runningWith(file: string): number[] {
  const commandLine = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    } catch {
      return [];
    }
  };
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid) && commandLine(pid)[0] === node && commandLine(pid).includes(file))
    .map(Number);
}

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

describe("enroll by flags", () => {
  it("looks at the coordinator, writes the configuration and the token apart, and says how to start", async () => {
    const { url } = await coordinator();
    const { file, tokenFile, given, enroll, read } = machine();
    const { code, out, err } = await enroll("--coordinator", url, "--token-file", given, "--name", "rig-01");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^ {2}coordinator {2}ok {3}it speaks gpunode\.v1/m);
    expect(out).toMatch(new RegExp(`Start it with "gpunode run --config ${file}"`));
    expect(read()).toBe(`name = "rig-01"\n\n[coordinator]\nurl = "${url}"\njoin_token_file = "${tokenFile}"\n`);
    expect(readFileSync(tokenFile, "utf8")).toBe(`${TOKEN}\n`);
    expect([mode(file), mode(tokenFile)]).toEqual(["600", "600"]);
    expect(out).not.toContain(TOKEN);
    expect((await gpunode(["config", "check", "--config", file])).code).toBe(0);
  });

  it("takes the token from standard input or the environment", async () => {
    const { url } = await coordinator();
    const { file, tokenFile, files } = machine();
    const args = ["src/cli/main.ts", "enroll", "--config", file, "--coordinator", url];
    const piped = start("sh", ["-c", `printf '%s\\n' ${TOKEN} | ${node} ${args.join(" ")} --token-stdin`]);
    expect(await outcome(piped)).toMatchObject({ code: 0, err: "" });
    expect(readFileSync(tokenFile, "utf8")).toBe(`${TOKEN}\n`);
    const env = { GPUNODE_COORDINATOR_JOIN_TOKEN: "another", GPUNODE_COORDINATOR_URL: url };
    expect((await outcome(start(node, args.slice(0, 4), env))).code).toBe(0);
    expect(readFileSync(tokenFile, "utf8")).toBe("another\n");
    expect(files()).toEqual(["config.toml", "given", "join-token"]);
  });

  it("keeps what is there: comments, other keys, its mode; an old token in the configuration goes", async () => {
    const { url } = await coordinator();
    const before = `# by Ann\nlabels = { site = "garage" } # here\n\n[coordinator]\nurl = "${url}" # ours\njoin_token = "old"\n\n[policy]\nmax_workloads = 2\n`;
    const { file, tokenFile, given, enroll, read } = machine(before);
    expect((await enroll("--coordinator", url, "--token-file", given)).code).toBe(0);
    expect(read()).toBe(before.replace('join_token = "old"', `join_token_file = "${tokenFile}"`));
    expect(mode(file)).toBe("640");
  });

  it("--dry-run looks and tells, and writes nothing", async () => {
    const { url } = await coordinator();
    const { tokenFile, given, enroll, files } = machine();
    const { code, out } = await enroll("--coordinator", url, "--token-file", given, "--dry-run");
    expect(code).toBe(0);
    expect(out).toContain(`would: write the join token to ${tokenFile}\n`);
    expect(out).toMatch(/^would: write .*config\.toml: coordinator\.url = /m);
    expect(out).not.toContain(TOKEN);
    expect(files()).toEqual(["given"]);
  });

  it("changes to another coordinator only when told so, and shows it no token of the old one", async () => {
    const [old, other] = [await coordinator(), await coordinator()];
    const { given, enroll, read, files } = machine(`[coordinator]\nurl = "${old.url}"\njoin_token = "old"\n`);
    const refused = await enroll("--coordinator", other.url, "--token-file", given);
    expect(refused.code).toBe(2);
    expect(refused.err).toContain(`set up for ${old.url} already: --yes changes that to ${other.url}`);
    expect(files()).toEqual(["config.toml", "given"]);
    const { code, out } = await enroll("--coordinator", other.url, "--without-token", "--yes");
    expect(code).toBe(0);
    expect(out).toContain(`This machine is set up for ${old.url} already, and is not connected.`);
    expect(read()).toBe(`[coordinator]\nurl = "${other.url}"\n`);
  });

  it.each<[string, string[], RegExp]>([
    ["nothing at all", [], /no terminal here to ask at: give --coordinator URL and --token-file FILE/],
    ["--yes and no token", ["--yes", "--coordinator", "wss://c"], /with --yes nothing is asked: give --token-file/],
    [
      "a token on the command line",
      ["--token", "s3cret"],
      /--token would show the join token to every user.*--token-file/,
    ],
    [
      "an address that is none",
      ["--coordinator", "what?", "--without-token"],
      /--coordinator what\?: expected an address such as/,
    ],
    [
      "ws to another machine",
      ["--coordinator", "ws://192.0.2.1", "--without-token"],
      /unencrypted.*use wss:\/\/, or add --insecure/,
    ],
    [
      "a password in --proxy",
      ["--coordinator", "wss://c", "--without-token", "--proxy", "http://u:s3cret@p"],
      /--proxy with a password.*coordinator\.proxy/,
    ],
    ["two sources of the token", ["--coordinator", "wss://c", "--without-token", "--token-stdin"], /give one of/],
    ["--json", ["--json"], /goes with --rotate/],
    ["a time that is none", ["--wait-seconds", "soon"], /expected a whole number/],
  ])("%s is a usage error, and changes nothing", async (_what, args, sentence) => {
    const { enroll, files } = machine();
    const { code, err } = await enroll(...args);
    expect(code).toBe(2);
    expect(err).toMatch(sentence);
    expect(err).not.toContain("s3cret");
    expect(files()).toEqual(["given"]);
  });

  it.each<[string, string, RegExp]>([
    ["an empty file", "", /holds no join token: it is empty/],
    ["two words", "one two", /must be one token and nothing else/],
    ["another file", "x".repeat(20_000), /too long/],
  ])("a token file with %s is refused without quoting it", async (_what, contents, sentence) => {
    const { given, enroll, files } = machine();
    writeFileSync(given, contents);
    const { code, err } = await enroll("--coordinator", "wss://127.0.0.1:1", "--token-file", given);
    expect(code).toBe(1);
    expect(err).toMatch(sentence);
    expect(err).not.toMatch(/one two|xxxx/);
    expect(files()).toEqual(["given"]);
  });

  it("a coordinator that cannot be used is told with what to do, and nothing is written; --no-check writes all the same", async () => {
    const { given, enroll, files, read } = machine();
    const { code, out, err } = await enroll("--coordinator", "wss://127.0.0.1:1", "--token-file", given);
    expect(code).toBe(1);
    expect(out).toMatch(/^ {2}connection {3}no {3}nobody listens there/m);
    expect(err).toContain("gpunode: wss://127.0.0.1:1 cannot be used: nobody listens there");
    expect(files()).toEqual(["given"]);
    expect((await enroll("--coordinator", "wss://127.0.0.1:1", "--token-file", given, "--no-check")).code).toBe(0);
    expect(read()).toContain('url = "wss://127.0.0.1:1"');
  });

  it("a configuration that is wrong already is told as such, and left as it is", async () => {
    const { given, enroll, read } = machine("[policy]\nmax_worloads = 3\n");
    const { code, err } = await enroll("--coordinator", "wss://c", "--token-file", given);
    expect(code).toBe(78);
    expect(err).toContain('unknown key "policy.max_worloads"');
    expect(read()).toBe("[policy]\nmax_worloads = 3\n");
  });

  it("a folder that may not be written is told before anything is asked", async () => {
    const { code, err } = await gpunode(["enroll", "--config", "/proc/sys/gpunode/config.toml"]);
    expect(code).toBe(1);
    expect(err).toMatch(/\/proc\/sys\/gpunode\/config\.toml cannot be written by this user/);
  });

  it("goes through a proxy, and says where the shell has one that gpunode was not told of", async () => {
    const { url } = await coordinator();
    const { file, given, enroll, read } = machine();
    const proxy = await connectProxy();
    const through = `http://127.0.0.1:${proxy.port}`;
    const { code } = await enroll("--coordinator", url, "--token-file", given, "--proxy", through);
    expect(code).toBe(0);
    expect(read()).toContain(`proxy = "${through}"`);
    expect(proxy.asked.length).toBeGreaterThan(0);
    const args = [
      "src/cli/main.ts",
      "enroll",
      "--config",
      `${file}.2`,
      "--coordinator",
      "wss://127.0.0.1:1",
      "--without-token",
    ];
    const { out } = await outcome(start(node, args, { HTTPS_PROXY: through }));
    expect(out).toContain("This shell uses a proxy (HTTPS_PROXY)");
  });

  it.runIf(haveOpenssl)(
    "shows the fingerprint of a certificate that is not trusted, and takes its authority",
    async () => {
      const certificate = makeCertificate(scratch(), "127.0.0.1");
      const { url } = await coordinator({ tls: certificate });
      const { given, enroll, read } = machine();
      const stranger = await enroll("--coordinator", url, "--token-file", given);
      expect(stranger.code).toBe(1);
      expect(stranger.err).toMatch(/SHA-256 (?:[0-9A-F]{2}:){31}[0-9A-F]{2}; .*--ca-file FILE/);
      expect((await enroll("--coordinator", url, "--token-file", given, "--ca-file", certificate.certFile)).code).toBe(
        0,
      );
      expect(read()).toContain(`ca_file = "${certificate.certFile}"`);
      // Back to what the machine trusts, which this coordinator's is not: told, and left.
      const back = await enroll("--coordinator", url, "--token-file", given, "--ca-file", "system");
      expect(back.code).toBe(1);
      expect(read()).toContain("ca_file");
    },
  );

  it("leaves neither file half written where the disk refuses", async () => {
    const { url } = await coordinator();
    const { dir, given, enroll, read, files } = machine(`[coordinator]\nurl = "${url}"\n`);
    // A folder stands where the token is to lie.
    mkdirSync(join(dir, "join-token"));
    const before = read();
    const { code } = await enroll("--coordinator", url, "--token-file", given);
    expect(code).toBe(1);
    expect(read()).toBe(before);
    expect(files()).toEqual(["config.toml", "given", "join-token"]);
  });
});

describe.runIf(haveTerminal)("enroll at a terminal", () => {
  const PROMPTS = {
    url: "Coordinator (such as wss://coordinator.example): ",
    token: "Join token (it is not shown; Enter where the coordinator knows this machine): ",
    name: /What it is called there \[[^\]]+\]: /,
    go: "Do that? [Y/n] ",
  };

  /** The command at a terminal whose settings are shown before and after it. */
  function sitting(file: string, ...args: string[]): AtTerminal {
    const command = `stty -a; ${node} src/cli/main.ts enroll --config ${file} ${args.join(" ")}; code=$?; stty -a; exit $code`;
    const inherited = Object.entries(process.env).filter(([name]) => !/^GPUNODE_|_proxy$/i.test(name));
    const terminal = atTerminal(command, { cwd: root, env: Object.fromEntries(inherited) });
    onTestFinished(() => terminal[Symbol.asyncDispose]());
    return terminal;
  }

  function expectRestored({ shown }: AtTerminal): void {
    const settings = shown.match(/^speed [\s\S]*?echoke.*$/gm) ?? [];
    expect(settings).toHaveLength(2);
    expect(settings[1]).toBe(settings[0]);
    expect(settings[0]).toMatch(/ echo /);
  }

  it("asks, says what was wrong with an answer and asks again, and shows no token", async () => {
    const { url } = await coordinator();
    const { file, tokenFile, read } = machine();
    const person = sitting(file);
    await person.until(PROMPTS.url);
    person.type("http://[no\n");
    await person.until('That will not do: expected an address such as "wss://coordinator.example"');
    await person.until(PROMPTS.url);
    person.type("ws://127.0.0.1:1\n");
    await person.until("nobody listens there");
    await person.until("Another address, or Enter to look again: ");
    person.type(`${url}\n`);
    await person.until("it speaks gpunode.v1");
    await person.until(PROMPTS.token);
    person.type("two words\n");
    await person.until("That will not do: it must be one token and nothing else");
    await person.until(PROMPTS.token);
    person.type(`${TOKEN}\n`);
    await person.until(PROMPTS.name);
    person.type("rig-01\n");
    await person.until(PROMPTS.go);
    person.type("perhaps\n");
    await person.until('answer "y" or "n"');
    await person.until(PROMPTS.go);
    person.type("\n");
    await person.until("Start it with");
    expect(await person.ended).toBe(0);
    expect(person.shown).not.toContain(TOKEN);
    expect(person.shown).not.toContain("two words");
    expectRestored(person);
    expect(read()).toContain('name = "rig-01"');
    expect(readFileSync(tokenFile, "utf8")).toBe(`${TOKEN}\n`);
  });

  it.each<[string, (person: AtTerminal, url: string) => Promise<void>]>([
    ["the first question", async (person) => await person.until(PROMPTS.url)],
    [
      "the token, half typed",
      async (person, url) => {
        await person.until(PROMPTS.url);
        person.type(`${url}\n`);
        await person.until(PROMPTS.token);
        person.type(TOKEN.slice(0, 9));
      },
    ],
    [
      "the last question",
      async (person, url) => {
        await person.until(PROMPTS.url);
        person.type(`${url}\n`);
        await person.until(PROMPTS.token);
        person.type(`${TOKEN}\n`);
        await person.until(PROMPTS.name);
        person.type("\n");
        await person.until(PROMPTS.go);
      },
    ],
  ])("Ctrl-C at %s changes nothing and gives the terminal back", async (_where, getThere) => {
    const { url } = await coordinator();
    const { file, files } = machine();
    const person = sitting(file);
    await getThere(person, url);
    person.type("\x03");
    await person.until("gpunode: interrupted; nothing was changed");
    expect(await person.ended).toBe(130);
    expect(files()).toEqual(["given"]);
    expect(person.shown).not.toContain(TOKEN.slice(0, 9));
    expectRestored(person);
  });

  it("Ctrl-C while the coordinator is looked at, and Ctrl-D, end it as well", async () => {
    const { file, files } = machine();
    const looking = sitting(file, "--coordinator", "wss://192.0.2.1", "--without-token", "--name", "x");
    await looking.until("Looking at wss://192.0.2.1");
    looking.type("\x03");
    expect(await looking.ended).toBe(130);
    expectRestored(looking);
    const leaving = sitting(file);
    await leaving.until(PROMPTS.url);
    leaving.type("\x04");
    await leaving.until("interrupted; nothing was changed");
    expect(await leaving.ended).toBe(130);
    expectRestored(leaving);
    expect(files()).toEqual(["given"]);
  });

  it("what is typed before a question is no answer to it", async () => {
    const { url } = await coordinator();
    const { file, files } = machine();
    const person = sitting(file, "--coordinator", url, "--without-token", "--name", "x");
    // In impatience, long before it is asked.
    person.type("y\n\ny\nno");
    await person.until(PROMPTS.go);
    person.type("n\n");
    await person.until("gpunode: nothing was changed");
    expect(await person.ended).toBe(1);
    expect(files()).toEqual(["given"]);
  });

  it("a machine that has a coordinator says so, and is asked before it changes", async () => {
    const [old, other] = [await coordinator(), await coordinator()];
    const before = `[coordinator]\nurl = "${old.url}"\n`;
    const { file, read } = machine(before);
    const staying = sitting(file, "--coordinator", other.url);
    await staying.until(`This machine is set up for ${old.url} already, and is not connected.`);
    await staying.until(`Change that to ${other.url}? [y/N] `);
    staying.type("\n");
    await staying.until("left as it is; nothing was changed");
    expect(await staying.ended).toBe(1);
    expect(read()).toBe(before);
    const changing = sitting(file);
    await changing.until("Enrol it anew? [y/N] ");
    changing.type("yes\n");
    await changing.until(`Coordinator [${old.url}]: `);
    changing.type(`${other.url}\n`);
    await changing.until(PROMPTS.token);
    changing.type(`${TOKEN}\n`);
    await changing.until(PROMPTS.name);
    changing.type("\n");
    await changing.until(PROMPTS.go);
    changing.type("y\n");
    expect(await changing.ended).toBe(0);
    expect(read()).toContain(`url = "${other.url}"`);
  });

  it("ws to another machine is explained, and taken only where it is wanted", async () => {
    const { file } = machine();
    const person = sitting(file, "--without-token");
    await person.until(PROMPTS.url);
    person.type("ws://192.0.2.1:7800\n");
    await person.until("would send everything unencrypted to another machine");
    await person.until("do you want that? [y/N] ");
    person.type("n\n");
    await person.until(PROMPTS.url);
    person.type("\x03");
    expect(await person.ended).toBe(130);
  });

  it.runIf(haveOpenssl)("a certificate that is not trusted is shown, and its authority asked for", async () => {
    const certificate = makeCertificate(scratch(), "127.0.0.1");
    const { url } = await coordinator({ tls: certificate });
    const { file, read } = machine();
    const person = sitting(file, "--without-token");
    await person.until(PROMPTS.url);
    // Without its scheme, as people type it.
    person.type(`${url.replace("wss://", "")}\n`);
    await person.until(/SHA-256 (?:[0-9A-F]{2}:){31}[0-9A-F]{2}/);
    await person.until("Do you have its authority as a PEM file? [y/N] ");
    person.type("y\n");
    await person.until("Path of that file: ");
    person.type(`${certificate.certFile}\n`);
    await person.until("it speaks gpunode.v1");
    await person.until(PROMPTS.name);
    person.type("\n");
    await person.until(PROMPTS.go);
    person.type("\n");
    expect(await person.ended).toBe(0);
    expect(read()).toBe(`[coordinator]\nurl = "${url}"\nca_file = "${certificate.certFile}"\n`);
  });

  it("a signal from elsewhere gives the terminal back, too", async () => {
    const { file, files } = machine();
    const person = sitting(file);
    await person.until(PROMPTS.url);
    for (const pid of runningWith(file)) process.kill(pid, "SIGTERM");
    await person.until("interrupted; nothing was changed");
    expect(await person.ended).toBe(130);
    expectRestored(person);
    expect(files()).toEqual(["given"]);
  });
});

it("a user's own configuration lies in their own folder, and is found there", async () => {
  if (process.getuid?.() !== 0 || existsSync("/etc/gpunode/config.toml")) return;
  const home = scratch();
  chmodSync(home, 0o777);
  const { url } = await coordinator();
  const env = { HOME: home, XDG_CONFIG_HOME: "", XDG_RUNTIME_DIR: "", PATH: process.env.PATH ?? "" };
  const nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", node, join(root, "dist/gpunode.js")];
  const asNobody = (...args: string[]) => outcome(start("setpriv", [...nobody, ...args], env));
  const { code, out, err } = await asNobody("enroll", "--coordinator", url, "--without-token");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out).toContain('Start it with "gpunode run"');
  expect(readFileSync(join(home, ".config/gpunode/config.toml"), "utf8")).toBe(`[coordinator]\nurl = "${url}"\n`);
  expect((await asNobody("config", "show")).out).toMatch(new RegExp(`^coordinator\\.url +"${url}" `, "m"));
});
