import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHECKS } from "../../src/doctor/checks.ts";
import type { Machine, Ran } from "../../src/doctor/machine.ts";
import { runProgram } from "../../src/doctor/machine.ts";
import { mend, mendable } from "../../src/doctor/mend.ts";
import { examine } from "../../src/doctor/report.ts";
import { gpunode, scratch } from "../cli/gpunode.ts";
import { fakeEngine, json } from "../engine/fake-engine.ts";
import { lookOver, type Staged, stage } from "./staged.ts";

/** So that nothing is to be made of the driver's own. */
const DEVICES = { "/dev/nvidiactl": "", "/dev/nvidia-uvm": "" };
const never = new AbortController().signal;

/** Programs of the staged machine are run for real, with its folder in $ROOT; so are the system's that work on files alone. */
function runsForReal({ root, doors }: Staged): Machine {
  const run: Machine["run"] = (argv) =>
    new Promise((resolve) => {
      const [name = "", ...args] = argv;
      const own = doors.machine.program(name.replace(/^.*\//, ""));
      const file = own === undefined ? name : join(root, own);
      // What lies on the staged machine is changed there.
      const there = args.map((arg) => (/^\/(?:state|etc)\b/.test(arg) ? join(root, arg) : arg));
      if (own === undefined && !["chmod", "chown"].includes(name))
        return resolve({ problem: `${name} is not installed` });
      execFile(file, there, { env: { ...process.env, ROOT: root } }, (error, stdout, stderr) => {
        resolve(
          error === null
            ? { code: 0, stdout, stderr }
            : ({ code: Number(error.code ?? 1), stdout, stderr } satisfies Ran),
        );
      });
    });
  return { ...doors.machine, run };
}

async function fix(staged: Staged, named: string[] = [], machine = runsForReal(staged)) {
  const said: string[] = [];
  const { findings } = await examine(CHECKS, staged.doors, { signal: never });
  const outcomes = await mend(mendable(findings, new Set(named)), {
    machine,
    say: (line) => said.push(line),
    signal: never,
  });
  return { said, outcomes };
}

const ENGINE = {
  "GET /version": json({ Version: "27.3.1", ApiVersion: "1.47" }),
  "GET /info": json({ CgroupVersion: "2", CgroupDriver: "systemd", Runtimes: { nvidia: {} } }),
};

/** Stands for NVIDIA's: it writes what the real one would, below the staged machine's folder. */
const CTK = `
case "$1 $2" in
  "system create-dev-char-symlinks")
    for file in "$ROOT"/dev/nvidia*; do
      ln -sf "../\${file##*/}" "$ROOT/dev/char/$(printf '%d:%d' 0x$(stat -c %t "$file") 0x$(stat -c %T "$file"))"
    done ;;
  "cdi generate")
    printf 'kind: nvidia.com/gpu\\ndevices:\\n- name: "0"\\n- hostPath: /usr/lib/libcuda.so.550.163.01\\n' >"$ROOT\${3#--output=}" ;;
esac`;

describe("--fix", () => {
  it.runIf(process.geteuid?.() === 0)(
    "mends the trap of daemon-reload and a stale CDI specification, and a second time finds nothing to do",
    async () => {
      const staged = stage({
        scenario: JSON.stringify({ driver: "550.163.01", gpus: [{ model: "t4" }] }),
        files: {
          "/usr/bin/nvidia-ctk": { program: CTK },
          "/usr/bin/nvidia-container-runtime-hook": { program: "" },
          "/etc/cdi/nvidia.yaml":
            'kind: nvidia.com/gpu\ndevices:\n- name: "0"\n- hostPath: /usr/lib/libcuda.so.535.247.01\n',
        },
        config: 'docker = { socket = "/d.sock" }\n',
      });
      mkdirSync(join(staged.root, "dev/char"), { recursive: true });
      const node = (name: string, minor: string) =>
        runProgram(["mknod", "-m", "666", join(staged.root, "dev", name), "c", "195", minor], {
          timeoutMs: 5000,
          signal: never,
        });
      await node("nvidia0", "0");
      await node("nvidiactl", "255");
      await node("nvidia-uvm", "250");
      await using engine = await fakeEngine(ENGINE);
      await runProgram(["ln", "-s", engine.socketPath, join(staged.root, "d.sock")], {
        timeoutMs: 5000,
        signal: never,
      });
      const before = await lookOver(staged);
      expect(before.of("daemon-reload")).toMatch(
        /^warning: .*\/dev\/nvidia-uvm, \/dev\/nvidia0 and \/dev\/nvidiactl have no link/,
      );
      expect(before.of("cdi-spec")).toMatch(/^warning: .*535\.247\.01/);

      const { said, outcomes } = await fix(staged);
      expect(outcomes).toEqual([{ id: "cdi-spec" }, { id: "daemon-reload" }]);
      expect(said).toEqual([
        "cdi-spec: /usr/bin/nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        "daemon-reload: /usr/bin/nvidia-ctk system create-dev-char-symlinks --create-all",
        expect.stringMatching(
          /^daemon-reload: printf '.*' \| tee \/etc\/udev\/rules\.d\/71-nvidia-dev-char\.rules$/,
        ) as string,
      ]);
      const rule = readFileSync(join(staged.root, "etc/udev/rules.d/71-nvidia-dev-char.rules"), "utf8");
      expect(rule).toMatch(
        /^ACTION=="add", DEVPATH=="\/bus\/pci\/drivers\/nvidia", RUN\+="\/usr\/bin\/nvidia-ctk system create-dev-char-symlinks --create-all"$/m,
      );

      const after = await lookOver(staged);
      expect(after.of("daemon-reload")).toBe("ok: all have their link in /dev/char");
      expect(after.of("cdi-spec")).toBe("ok: /etc/cdi/nvidia.yaml: driver 550.163.01");
      expect((await fix(staged)).said).toEqual([]);
    },
  );

  it("closes the state folder and the key in it", async () => {
    const staged = stage({
      scenario: "t4",
      files: { ...DEVICES, "/state/identity.pem": "key" },
      config: 'state_dir = "/state"\n',
    });
    const [dir, key] = [join(staged.root, "state"), join(staged.root, "state/identity.pem")];
    chmodSync(dir, 0o755);
    chmodSync(key, 0o644);
    const { said } = await fix(staged);
    expect(said).toEqual(["state-dir: chmod 0700 /state", "state-dir: chmod 0600 /state/identity.pem"]);
    expect([statSync(dir).mode & 0o777, statSync(key).mode & 0o777]).toEqual([0o700, 0o600]);
    expect((await lookOver(staged)).of("state-dir")).toMatch(/^ok/);
  });

  it("switches persistence mode on, by the driver's service where that keeps it on", async () => {
    const persistence = { kind: "override", gpu: 0, values: { persistence_mode: "Disabled" } };
    const scenario = JSON.stringify({ gpus: [{ model: "t4" }], faults: [persistence] });
    const unit = (flag: string) => `[Service]\nExecStart=/usr/bin/nvidia-persistenced --user x ${flag}\n`;
    const files = (flag: string) => ({
      ...DEVICES,
      "/run/systemd/system/x": "",
      "/lib/systemd/system/nvidia-persistenced.service": unit(flag),
    });
    const does = async (flag: string) => (await fix(stage({ scenario, files: files(flag) }))).said[0];
    expect(await does("--persistence-mode")).toBe("persistence-mode: systemctl enable --now nvidia-persistenced");
    expect(await does("--no-persistence-mode")).toMatch(/^persistence-mode: \/.*nvidia-smi -pm 1$/);
  });

  it("does what changes the machine for its owner only where that is named", async () => {
    const files = {
      ...DEVICES,
      "/run/systemd/system/x": "",
      "/etc/systemd/logind.conf": "[Login]\nIdleAction=suspend\n",
      "/usr/bin/systemctl": { program: 'shift; for unit; do ln -s /dev/null "$ROOT/etc/systemd/system/$unit"; done' },
      "/etc/systemd/system/.keep": "",
    };
    const staged = stage({ scenario: "t4", files });
    expect((await fix(staged)).said).toEqual([]);
    expect((await lookOver(staged)).of("sleep")).toBe("warning: logind's IdleAction is suspend");
    const { said } = await fix(staged, ["sleep"]);
    expect(said).toEqual(["sleep: systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target"]);
    expect((await lookOver(staged)).of("sleep")).toBe("ok: systemd's sleep targets are masked");
    expect((await fix(staged, ["sleep"])).said).toEqual([]);
  });

  it("reserves ports only where that is named", async () => {
    const staged = stage({
      scenario: "t4",
      files: {
        ...DEVICES,
        "/proc/net/tcp": "",
        "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
        "/usr/sbin/sysctl": { program: "exit 0" },
      },
      config: 'policy = { host_ports = "40000-40999" }\n',
    });
    expect((await fix(staged)).said).toEqual([]);
    await fix(staged, ["host-ports"]);
    expect(readFileSync(join(staged.root, "etc/sysctl.d/60-gpunode.conf"), "utf8")).toBe(
      "net.ipv4.ip_local_reserved_ports = 40000-40999\n",
    );
  });

  it("says what did not work, and goes on with the rest", async () => {
    const staged = stage({
      scenario: "t4",
      files: { ...DEVICES, "/state/identity.pem": "key" },
      config: 'state_dir = "/state"\n',
    });
    chmodSync(join(staged.root, "state"), 0o777);
    chmodSync(join(staged.root, "state/identity.pem"), 0o644);
    const machine: Machine = {
      ...staged.doors.machine,
      run: () => Promise.resolve({ code: 1, stdout: "", stderr: "chmod: read-only file system\n" }),
    };
    const { said, outcomes } = await fix(staged, [], machine);
    expect(said).toEqual([
      "state-dir: chmod 0700 /state",
      "state-dir: that did not work: chmod: read-only file system",
    ]);
    expect(outcomes).toEqual([{ id: "state-dir", problem: "chmod: read-only file system" }]);
  });
});

describe("the command", () => {
  const options = async () => {
    const dir = scratch();
    const config = join(dir, "c.toml");
    writeFileSync(
      config,
      `state_dir = "${dir}/s"\nrun_dir = "${dir}/r"\nnvidia = { smi = "${dir}/none" }\ndocker = { socket = "${dir}/d" }\n`,
    );
    return { dir, config };
  };

  it("tells of a check that there is not, and which was meant", async () => {
    const { code, err } = await gpunode(["doctor", "driver-mach"]);
    expect({ code, err }).toEqual({
      code: 2,
      err: 'gpunode: there is no check "driver-mach"; did you mean "driver-match"? "gpunode doctor --verbose" shows them all.\n',
    });
  });

  it("fails where something does, and not for a warning", async () => {
    const { config, dir } = await options();
    mkdirSync(join(dir, "s"), { mode: 0o755 });
    chmodSync(join(dir, "s"), 0o755);
    const bad = await gpunode(["doctor", "engine", "--config", config]);
    expect([bad.code, bad.err]).toEqual([1, ""]);
    expect(bad.out).toMatch(/^failure {2}engine: /m);
    const warned = await gpunode(["doctor", "state-dir", "daemon", "--config", config]);
    expect(warned.code).toBe(0);
    expect(warned.out).toMatch(/^warning {2}state-dir: .* has mode 0755$/m);
    expect(warned.out).toMatch(/doctor --fix" mends state-dir\.$/m);
  });

  it.runIf(process.geteuid?.() === 0)("--fix mends for real, tells each step, and reports what is then", async () => {
    const { config, dir } = await options();
    mkdirSync(join(dir, "s"));
    chmodSync(join(dir, "s"), 0o755);
    const { code, out } = await gpunode(["doctor", "--fix", "state-dir", "--config", config]);
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^state-dir: chmod 0700 ${dir}/s\\n\\n`));
    expect(out).toMatch(/^ok +state-dir$/m);
    expect(statSync(join(dir, "s")).mode & 0o777).toBe(0o700);
    const again = await gpunode(["doctor", "--fix", "state-dir", "--json", "--config", config]);
    expect(again.err).toBe("There is nothing to mend that is safe to mend.\n");
    expect(JSON.parse(again.out)).toMatchObject({ counts: { ok: 1, warning: 0 } });
  });

  it("takes a wrong configuration for a finding, and judges the rest by the defaults", async () => {
    const { dir } = await options();
    const config = join(dir, "bad.toml");
    writeFileSync(config, "[polcy]\nimages = []\n");
    const { code, out } = await gpunode(["doctor", "config", "platform", "--config", config]);
    expect(code).toBe(1);
    expect(out).toMatch(/^failure {2}config: .*bad\.toml:1.*unknown key "polcy"; did you mean "policy"\?/m);
    expect(out).toMatch(/^ok +platform$/m);
  });

  it("--json is one document with what is to be typed on this machine", async () => {
    const { config } = await options();
    const { out } = await gpunode(["doctor", "engine", "--json", "--config", config]);
    expect(JSON.parse(out)).toEqual({
      doctorVersion: 1,
      at: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      gpunodeVersion: expect.any(String) as string,
      machine: {
        hostname: expect.any(String) as string,
        os: expect.any(String) as string,
        kernel: expect.any(String) as string,
      },
      counts: { ok: 0, note: 0, warning: 0, failure: 1, skipped: 0 },
      checks: [
        {
          id: "engine",
          title: "The container engine answers",
          verdict: "failure",
          found: expect.any(String) as string,
          why: "without it nothing can run here",
          fix: expect.arrayContaining([
            { kind: "command", text: expect.stringContaining("docker") as string },
          ]) as object[],
        },
      ],
    });
  });

  it.runIf(process.geteuid?.() !== 0)("--fix says how to run it as root", async () => {
    const { config, dir } = await options();
    mkdirSync(join(dir, "s"), { mode: 0o755 });
    const { code, err } = await gpunode(["doctor", "--fix", "state-dir", "--config", config]);
    expect([code, err]).toEqual([1, "gpunode: --fix needs root; run: sudo gpunode doctor --fix state-dir\n"]);
  });
});
