import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { inspect } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { withJoinToken } from "../../src/config/join-token.ts";
import { envNameOf, KEY_NAMES, KEYS } from "../../src/config/keys.ts";
import { type LoadOptions, loadConfig, resolveConfig } from "../../src/config/load.ts";
import { editDistance, nearest } from "../../src/config/nearest.ts";
import { networkException } from "../../src/config/network-exception.ts";
import { ConfigError } from "../../src/config/problem.ts";
import { configurationReference } from "../../src/config/reference.ts";
import { systemRunDir, systemStateDir } from "../../src/config/surroundings.ts";

function write(text: string, name = "config.toml", mode = 0o600): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-config-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, name);
  writeFileSync(file, text, { mode });
  return file;
}

const load = (text: string, more: Partial<LoadOptions> = {}) => loadConfig({ file: write(text), env: {}, ...more });

/** The problems with a file, each without the file's name. */
async function problems(text: string, more: Partial<LoadOptions> = {}): Promise<string[]> {
  const file = write(text);
  const error = await loadConfig({ file, env: {}, ...more }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ConfigError);
  return (error as ConfigError).problems.map((problem) => problem.replaceAll(file, "FILE"));
}

it("an empty file gives the defaults", async () => {
  const config = await load("", { env: { STATE_DIRECTORY: "/s", RUNTIME_DIRECTORY: "/r:/other" } });
  expect(config).toEqual({
    name: hostname(),
    labels: {},
    stateDir: "/s",
    runDir: "/r",
    coordinator: { insecure: false },
    nvidia: { smi: "nvidia-smi", simulated: false, kernelLog: "/dev/kmsg" },
    docker: { socket: "/var/run/docker.sock" },
    telemetry: { intervalMs: 1000, healthIntervalMs: 60_000 },
    pressure: {
      vram: { elevatedPercent: 95, criticalPercent: 99, freeMiB: 2048 },
      hostMemory: { elevatedPercent: 85, criticalPercent: 95, freeMiB: 8192, stallPercent: 20 },
      disk: { elevatedPercent: 90, criticalPercent: 97, freeMiB: 51_200 },
    },
    availability: {
      windows: [],
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      noticeMs: 300_000,
      yieldToOwner: { vramMiB: 2048, ms: 10_000 },
      backAfterMs: 60_000,
    },
    preemption: {
      withinMs: 120_000,
      coordinator: true,
      priority: true,
      gpuFault: true,
      hostShutdown: true,
      hostShutdownMs: 60_000,
      foreignProcess: true,
      cloudNotice: true,
      hostPressure: true,
    },
    cloud: { provider: "auto" },
    policy: {
      images: ["*"],
      hostPorts: { from: 30000, to: 30999 },
      hostIp: "127.0.0.1",
      reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
      ...{ digestOnly: false, max: {}, userns: "any", allowCaches: true, readOnlyRoot: false },
      pullNoProgressSeconds: 120,
      cosignKeys: [],
    },
    network: { isolateLan: true, allow: [] },
    metrics: { listen: { host: "127.0.0.1", port: 9835 } },
    log: { level: "info", format: "auto" },
  });
});

it("reads every key from the file, in each of TOML's ways to write a table", async () => {
  const config = await load(`
    name = "rig-01"
    labels = { site = "garage" }
    state_dir = "/srv/state"
    run_dir = "/srv/run"
    policy.max_workloads = 3
    coordinator = { url = "https://c.example:8443/", join_token = "t0ken", ca_file = "/ca", cert_file = "/c", key_file = "/k", proxy = "http://u:p@proxy:3128" }
    [nvidia]
    smi = "/opt/nvidia-smi"
    [docker]
    socket = "/run/docker.sock"
    [telemetry]
    interval_ms = 250
    [policy.reserve]
    cpus = 1.5
    memory_mib = 1024
    disk_mib = 2048
    [log]
    level = "debug"
  `);
  expect(config).toMatchObject({
    name: "rig-01",
    labels: { site: "garage" },
    stateDir: "/srv/state",
    runDir: "/srv/run",
    coordinator: { url: "wss://c.example:8443", caFile: "/ca", certFile: "/c", keyFile: "/k" },
    nvidia: { smi: "/opt/nvidia-smi" },
    docker: { socket: "/run/docker.sock" },
    telemetry: { intervalMs: 250 },
    policy: { maxWorkloads: 3, reserve: { cpus: 1.5, memoryMiB: 1024, diskMiB: 2048 } },
    log: { level: "debug" },
  });
  expect(config.coordinator.joinToken?.reveal()).toBe("t0ken");
  expect(config.coordinator.proxy?.reveal()).toBe("http://u:p@proxy:3128");
});

it("flag over environment over file over default, and it says which", async () => {
  const file = write('name = "file"\n[log]\nlevel = "warn"\n[policy]\nmax_workloads = 2\n');
  const env = { GPUNODE_NAME: "environment", GPUNODE_POLICY_MAX_WORKLOADS: "", GPUNODE_LOG_LEVEL: "error" };
  const { config, settings } = await resolveConfig({ file, env, flags: { name: "flag" } });
  expect([config.name, config.log.level, config.policy.maxWorkloads]).toEqual(["flag", "error", 2]);
  const source = Object.fromEntries(settings.map(({ key, source }) => [key, source]));
  expect(source).toMatchObject({
    name: "--name",
    "log.level": "GPUNODE_LOG_LEVEL",
    "policy.max_workloads": file,
    "nvidia.smi": "default",
  });
});

it("every key can be set in the environment", async () => {
  const texts: Record<string, string> = {
    labels: "site=garage, rack=3",
    "coordinator.url": "ws://10.0.0.1:7800",
    "coordinator.insecure": "true",
    "nvidia.simulated": "1",
    "coordinator.proxy": "http://proxy:3128",
    "coordinator.join_token": "t",
    "telemetry.interval_ms": "200",
    "availability.windows": "Mon,Wed 18:00-08:00; 22:00-06:00",
    "availability.timezone": "Europe/Berlin",
    "availability.yield_to_owner.seconds": "20",
    "preemption.foreign_process": "no",
    "preemption.cloud_notice": "false",
    "preemption.host_pressure": "0",
    "cloud.provider": "aws",
    "cloud.metadata_url": "http://127.0.0.1:1338/",
    "preemption.host_shutdown": "false",
    "policy.images": "a/*, b/*",
    "policy.max_workloads": "0",
    "policy.host_ports": "1000-1001",
    "policy.host_ip": "::1",
    "policy.reserve.cpus": "0.5",
    "policy.reserve.memory_mib": "1",
    "policy.reserve.disk_mib": "2",
    "policy.runtime": "runsc",
    "policy.allow_root": "no",
    "policy.digest_only": "yes",
    "policy.userns": "require",
    "policy.allow_caches": "no",
    "policy.read_only_root": "yes",
    "policy.max.cpus": "1.5",
    "policy.max.pids": "7",
    "policy.max.ports": "0",
    "policy.pull_no_progress_seconds": "5",
    "preemption.priority": "no",
    "preemption.coordinator": "no",
    "preemption.gpu_fault": "no",
    "network.isolate_lan": "yes",
    "network.allow": "10.0.0.0/24, [fd00::5]:443",
    "network.bandwidth_mbit": "100",
    "metrics.listen": "[::1]:80",
    "log.level": "trace",
    "log.format": "json",
  };
  const names = KEY_NAMES.filter((key) => key !== "coordinator.join_token_file");
  const textOf = (key: string) => {
    if (/_elevated_|_stall_/.test(key)) return "50";
    return /_critical_|_mib$|_seconds$/.test(key) ? "60" : "/some/path";
  };
  const env = Object.fromEntries(names.map((key) => [envNameOf(key), texts[key] ?? textOf(key)]));
  const { config, settings, warnings } = await resolveConfig({ env });
  expect(warnings).toEqual([]);
  for (const key of names) expect(settings.find((setting) => setting.key === key)?.source).toBe(envNameOf(key));
  expect(config.labels).toEqual({ site: "garage", rack: "3" });
  expect(config.preemption).toEqual({
    withinMs: 60_000,
    hostShutdownMs: 60_000,
    ...{ hostShutdown: false, foreignProcess: false, cloudNotice: false, hostPressure: false },
    ...{ coordinator: false, priority: false, gpuFault: false },
  });
  expect(config.telemetry).toEqual({ intervalMs: 200, healthIntervalMs: 60_000 });
  const allow = [{ address: "10.0.0.0/24" }, { address: "fd00::5", port: 443 }];
  expect(config.network).toEqual({ isolateLan: true, allow, bandwidthMbit: 100 });
  const limits = { elevatedPercent: 50, criticalPercent: 60, freeMiB: 60 };
  expect(config.pressure).toEqual({ vram: limits, hostMemory: { ...limits, stallPercent: 50 }, disk: limits });
  expect(config.availability).toMatchObject({
    windows: [{ text: "Mon,Wed 18:00-08:00" }, { text: "22:00-06:00" }],
    timezone: "Europe/Berlin",
    noticeMs: 60_000,
    yieldToOwner: { vramMiB: 60, ms: 20_000 },
    backAfterMs: 60_000,
  });
  expect(config.cloud).toEqual({ provider: "aws", metadataUrl: "http://127.0.0.1:1338" });
  expect(config.metrics.listen).toEqual({ host: "::1", port: 80 });
  expect(config.policy).toEqual({
    images: ["a/*", "b/*"],
    maxWorkloads: 0,
    hostPorts: { from: 1000, to: 1001 },
    hostIp: "::1",
    reserve: { cpus: 0.5, memoryMiB: 1, diskMiB: 2 },
    runtime: "runsc",
    allowRoot: false,
    ...{ digestOnly: true, userns: "require", allowCaches: false, readOnlyRoot: true },
    max: { cpus: 1.5, memoryMiB: 60, shmMiB: 60, diskMiB: 60, pids: 7, ports: 0, runSeconds: 60 },
    pullNoProgressSeconds: 5,
    cosignKeys: ["/some/path"],
  });
});

describe("what is wrong is said with its line", () => {
  it.each([
    ["\n[policy]\nmax_worloads = 3\n", 'FILE:3: unknown key "policy.max_worloads"; did you mean "max_workloads"?'],
    ['[cordinator]\nurl = "wss://c"\n', 'FILE:1: unknown key "cordinator"; did you mean "coordinator"?'],
    ['url = "wss://c"\n', 'FILE:1: unknown key "url"; did you mean "coordinator.url"?'],
    ["policy = { reserve = { cpu = 2 } }\n", 'FILE:1: unknown key "policy.reserve.cpu"; did you mean "cpus"?'],
    ["[sleep]\nwindows = []\n", 'FILE:1: unknown key "sleep"'],
    ["policy = 3\n", 'FILE:1: "policy" is a section: write it as [policy]'],
    [
      '[telemetry]\n\ninterval_ms = "fast"\n',
      'FILE:3: telemetry.interval_ms = "fast": expected a whole number from 100 to 5000',
    ],
    ["[telemetry]\ninterval_ms = 50\n", "FILE:2: telemetry.interval_ms = 50: expected a whole number from 100 to 5000"],
    [
      "[telemetry]\ninterval_ms = 100.5\n",
      "FILE:2: telemetry.interval_ms = 100.5: expected a whole number from 100 to 5000",
    ],
    ['state_dir = "state"\n', 'FILE:1: state_dir = "state": expected an absolute path'],
    [
      'run_dir = "/tmp/..//proc/gpunode"\n',
      'FILE:1: run_dir = "/tmp/..//proc/gpunode": expected an absolute path, not below /proc, where no folder can be made',
    ],
    [
      "labels = { a = 1 }\n",
      'FILE:1: labels = {"a":1}: expected a table of texts, e.g. { site = "garage" }, names up to 63 and values up to 255 characters',
    ],
    ['[policy]\nimages = "*"\n', 'FILE:2: policy.images = "*": expected a list of texts, e.g. ["a", "b"]'],
    [
      '[network]\nallow = ["10.0.0.0/24", "192.168.1.10:0/tcp"]\n',
      'FILE:2: network.allow = ["10.0.0.0/24","192.168.1.10:0/tcp"]: expected a list such as ["192.168.1.10:2049/tcp", "10.0.0.0/24", "[fd00::5]:443"]; "192.168.1.10:0/tcp" is no address, range or port',
    ],
    [
      "[network]\nisolate_lan = false\nbandwidth_mbit = 10\n",
      "FILE:3: network.bandwidth_mbit needs network.isolate_lan = true, whose rules hold it",
    ],
    ...["localhost:80", "127.0.0.1", "::1:80", "[127.0.0.1]:80", "127.0.0.1:70000", "on"].map(
      (listen): [string, string] => [
        `[metrics]\nlisten = "${listen}"\n`,
        `FILE:2: metrics.listen = "${listen}": expected an IP address with a port, such as "127.0.0.1:9835" or "[::1]:9835", or "off"`,
      ],
    ),
    [
      '[policy]\nhost_ports = "2000-1000"\n',
      'FILE:2: policy.host_ports = "2000-1000": expected a range of ports within 1-65535 such as "30000-30999"',
    ],
    [
      '[policy]\nhost_ip = "0.0.0"\n',
      'FILE:2: policy.host_ip = "0.0.0": expected an IP address such as "127.0.0.1" or "0.0.0.0"',
    ],
    [
      '[log]\nlevel = "loud"\n',
      'FILE:2: log.level = "loud": expected one of "trace", "debug", "info", "warn", "error", "fatal", "silent"',
    ],
    [
      '[coordinator]\nurl = "ftp://c"\n',
      'FILE:2: coordinator.url = "ftp://c": expected an address such as "wss://coordinator.example" (scheme, host and port only)',
    ],
    [
      '[coordinator]\nurl = "wss://c/other/path"\n',
      'FILE:2: coordinator.url = "wss://c/other/path": expected an address such as "wss://coordinator.example" (scheme, host and port only)',
    ],
    [
      '[coordinator]\nurl = "ws://10.0.0.1"\n',
      "FILE:2: ws://10.0.0.1 is not encrypted: use wss://, or allow it with coordinator.insecure = true",
    ],
    [
      '[coordinator]\njoin_token = "a"\njoin_token_file = "/b"\n',
      "FILE:2: give either coordinator.join_token or coordinator.join_token_file, not both",
    ],
    [
      "[pressure]\nvram_elevated_percent = 99.5\n",
      "FILE:2: pressure.vram_critical_percent 99 must be above pressure.vram_elevated_percent 99.5",
    ],
    ['[coordinator]\ncert_file = "/c"\n', "FILE:2: coordinator.cert_file needs coordinator.key_file with it"],
    [
      "[coordinator]\njoin_token = 12345\n",
      "FILE:2: coordinator.join_token = the value: expected a text of 1 to 4096 characters",
    ],
    ['name = "a"\nname = "b"\n', expect.stringMatching(/^FILE:2:\d+: .*redefine/)],
    ["name = \n", expect.stringMatching(/^FILE:1:\d+: \w/)],
    ["[policy\n", expect.stringMatching(/^FILE:1:\d+: \w/)],
  ])("%j", async (text, problem) => {
    expect(await problems(text)).toEqual([problem]);
  });

  it("all of it at once, in the order of the file", async () => {
    const text = 'nam = "x"\n[log]\nlevel = 1\n[docker]\nsockets = "y"\n';
    const env = { GPUNODE_TELEMETRY_INTERVAL_MS: "soon" };
    expect(await problems(text, { env, flags: { "coordinator.url": "nowhere" } })).toEqual([
      '--coordinator: "nowhere": expected an address such as "wss://coordinator.example" (scheme, host and port only)',
      'GPUNODE_TELEMETRY_INTERVAL_MS: "soon": expected a whole number from 100 to 5000',
      'FILE:1: unknown key "nam"; did you mean "name"?',
      'FILE:3: log.level = 1: expected one of "trace", "debug", "info", "warn", "error", "fatal", "silent"',
      'FILE:5: unknown key "docker.sockets"; did you mean "socket"?',
    ]);
  });

  it("a file that is not there", async () => {
    await expect(loadConfig({ file: "/nowhere/config.toml", env: {} })).rejects.toThrow(
      "/nowhere/config.toml: there is no such file",
    );
    await expect(loadConfig({ env: { GPUNODE_CONFIG: "/nowhere/2.toml" } })).rejects.toThrow("/nowhere/2.toml");
  });
});

it("a plain ws:// address is fine on loopback, and elsewhere where it is allowed", async () => {
  expect((await load('[coordinator]\nurl = "ws://127.0.0.1:7800/v1/agent"')).coordinator.url).toBe(
    "ws://127.0.0.1:7800",
  );
  expect((await load('[coordinator]\nurl = "http://[::1]:7800"')).coordinator.url).toBe("ws://[::1]:7800");
  expect((await load('[coordinator]\nurl = "ws://c.example"\ninsecure = true')).coordinator.url).toBe("ws://c.example");
});

it("variables that look like ours and are not are named; those of other parts are not", async () => {
  const env = { GPUNODE_COORDINATOR_ULR: "x", GPUNODE_SIM_SCENARIO: "y", GPUNODE_COORDINATOR_API: "z", PATH: "/bin" };
  expect((await resolveConfig({ file: write(""), env })).warnings).toEqual([
    "the environment variable GPUNODE_COORDINATOR_ULR means nothing to gpunode; did you mean GPUNODE_COORDINATOR_URL?",
  ]);
});

it("folders: the machine's for root, the user's own otherwise", () => {
  const personal = { env: { HOME: "/home/ann", XDG_RUNTIME_DIR: "/run/user/1000" }, personal: true };
  expect([systemStateDir(personal), systemRunDir(personal)]).toEqual([
    "/home/ann/.local/state/gpunode",
    "/run/user/1000/gpunode",
  ]);
  expect(systemRunDir({ env: { HOME: "/home/ann" }, personal: true })).toBe("/home/ann/.local/state/gpunode/run");
  const system = { env: { HOME: "/root", XDG_RUNTIME_DIR: "/run/user/0" }, personal: false };
  expect([systemStateDir(system), systemRunDir(system)]).toEqual(["/var/lib/gpunode", "/run/gpunode"]);
});

describe("the join token", () => {
  it("never shows itself", async () => {
    const config = await load('[coordinator]\njoin_token = "t0ps3cret"\nproxy = "http://u:t0ps3cret@p"');
    for (const shown of [
      JSON.stringify(config),
      inspect(config, { depth: 9, showHidden: true }),
      `${config.coordinator.joinToken}`,
    ]) {
      expect(shown).toContain("[hidden]");
      expect(shown).not.toContain("t0ps3cret");
    }
  });

  it("comes from its file, which only those it concerns may read", async () => {
    const token = write("t0ken\n", "token");
    const config = await load(`[coordinator]\njoin_token_file = "${token}"`);
    expect(config.coordinator.joinToken).toBeUndefined();
    expect(withJoinToken(config).coordinator.joinToken?.reveal()).toBe("t0ken");
    chmodSync(token, 0o644);
    expect(() => withJoinToken(config)).toThrow(
      `coordinator.join_token_file ${token}: everybody on this machine can read it (mode 0644); run chmod o-rwx ${token}`,
    );
    chmodSync(token, 0o640);
    writeFileSync(token, "\n");
    expect(() => withJoinToken(config)).toThrow("it is empty");
    writeFileSync(token, "one\ntwo\n");
    expect(() => withJoinToken(config)).toThrow("it must hold one token and nothing else");
    rmSync(token);
    expect(() => withJoinToken(config)).toThrow("if this node has joined already, take the key out");
  });

  it("in a configuration file that everybody can read is worth a warning", async () => {
    const file = write('[coordinator]\njoin_token = "t"', "config.toml", 0o644);
    expect((await resolveConfig({ file, env: {} })).warnings).toEqual([
      `${file} holds coordinator.join_token and everybody on this machine can read it; run chmod o-rwx ${file}`,
    ]);
    chmodSync(file, 0o640);
    expect((await resolveConfig({ file, env: {} })).warnings).toEqual([]);
  });
});

it("finds the word that was meant, and none where none is near", () => {
  expect(editDistance("worloads", "workloads")).toBe(1);
  expect(editDistance("ulr", "url")).toBe(1);
  expect(editDistance("", "abc")).toBe(3);
  expect(nearest("scoket", ["socket", "smi"])).toBe("socket");
  expect(nearest("windows", ["socket", "smi"])).toBeUndefined();
  // Compared letter by letter this would take minutes.
  expect(nearest("x".repeat(5_000_000), ["socket", "smi"])).toBeUndefined();
});

it("docs/configuration.md is what the schema says", () => {
  const file = resolve(import.meta.dirname, "../../docs/configuration.md");
  expect(readFileSync(file, "utf8")).toBe(configurationReference());
  for (const key of KEY_NAMES) expect(KEYS[key].description).toMatch(/\.$/m);
});

describe("network.allow", () => {
  it.each([
    ["192.168.1.10:2049/tcp", { address: "192.168.1.10", port: 2049, protocol: "tcp" }],
    ["192.168.1.10:53", { address: "192.168.1.10", port: 53 }],
    ["192.168.1.0/24:53/udp", { address: "192.168.1.0/24", port: 53, protocol: "udp" }],
    ["10.0.0.0/24", { address: "10.0.0.0/24" }],
    ["10.0.0.1", { address: "10.0.0.1" }],
    ["fd00::/64", { address: "fd00::/64" }],
    ["[fd00::5]:443", { address: "fd00::5", port: 443 }],
    ["[fd00::/64]:443/tcp", { address: "fd00::/64", port: 443, protocol: "tcp" }],
  ])("%s", (text, exception) => {
    expect(networkException(text)).toEqual(exception);
  });

  it.each([
    "",
    "nas.local",
    "nas.local:2049",
    "10.0.0.0/33",
    "10.0.0.0/24/tcp",
    "10.0.0.1:70000",
    "10.0.0.1:22/sctp",
    "[10.0.0.1]:22",
    "[fd00::5]",
    "fe80::1%eth0",
    "::/129",
    "10.0.0.1; drop",
  ])("%s is none", (text) => {
    expect(networkException(text)).toBeUndefined();
  });
});

it("a word that every JavaScript object knows is no yes and no no", async () => {
  await expect(resolveConfig({ env: { GPUNODE_PREEMPTION_CLOUD_NOTICE: "constructor" } })).rejects.toThrow(
    'GPUNODE_PREEMPTION_CLOUD_NOTICE: "constructor": expected true or false',
  );
});

it("a window of a megabyte of blanks is none, without trying it in a million ways", async () => {
  const text = `mon${"\t\n".repeat(500_000)}x`;
  await expect(resolveConfig({ env: { GPUNODE_AVAILABILITY_WINDOWS: text } })).rejects.toThrow(/windows such as/);
});
