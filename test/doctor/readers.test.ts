import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { doctorInWords } from "../../src/cli/doctor-view.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { examine } from "../../src/doctor/report.ts";
import { patiently } from "../agent/rig.ts";
import { fakeEngine, json } from "../engine/fake-engine.ts";
import { lookOver, stage, stanza } from "./staged.ts";

const isRoot = process.geteuid?.() === 0;

/** As a driver of Debian 12 writes it. */
const PROC_DRIVER = `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Thu Mar 20 20:29:48 UTC 2025
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)
`;
/** As 560 and later write it where the open module is loaded. */
const PROC_DRIVER_OPEN = `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs-builder@U22-I3-B17-01-2)  Tue Apr  8 12:41:17 UTC 2025
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
`;
const DEBIAN = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n`;
const UBUNTU = `PRETTY_NAME="Ubuntu 24.04.2 LTS"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n`;

/** What `nvidia-ctk cdi generate` writes, shortened. */
const CDI = `---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.216.01
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.216.01
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
`;

/** Debian's own files, comments included. */
const APT = {
  "/etc/apt/apt.conf.d/20auto-upgrades": `APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n`,
  "/etc/apt/apt.conf.d/50unattended-upgrades": `Unattended-Upgrade::Origins-Pattern {
        "origin=Debian,codename=\${distro_codename},label=Debian";
//      "origin=Debian,codename=\${distro_codename}-updates";
};
// Python regular expressions, matching packages to exclude from upgrading
Unattended-Upgrade::Package-Blacklist {
    // The following matches all packages starting with linux-
//  "linux-";
    "libnvidia-cfg";
};
`,
};

const SERVICE_SHOWN =
  "systemctl show gpunode.service --property=UnitFileState,ActiveState,Result,NRestarts,NeedDaemonReload,User,SupplementaryGroups,AmbientCapabilities";

describe("a Debian server whose driver was upgraded while it ran", () => {
  async function server() {
    const staged = stage({
      scenario: JSON.stringify({
        driver: "535.247.01",
        gpus: [{ model: "l40s", count: 2 }],
        faults: [{ kind: "mismatch" }],
      }),
      files: {
        "/etc/os-release": DEBIAN,
        "/proc/sys/kernel/osrelease": "6.1.0-31-amd64\n",
        "/proc/sys/kernel/hostname": "tower\n",
        "/proc/driver/nvidia/version": PROC_DRIVER,
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.261.03": "",
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": { link: "libnvidia-ml.so.535.261.03" },
        "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
        "/sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
        "/sys/bus/pci/devices/0000:01:00.0/driver": { link: "../../drivers/nvidia" },
        "/lib/modules/6.1.0-9-amd64/modules.dep": "updates/dkms/nvidia-current.ko: \n",
        "/lib/modules/6.1.0-31-amd64/modules.dep": "kernel/fs/ext4/ext4.ko: \nupdates/dkms/nvidia-current.ko: \n",
        "/lib/modules/6.1.0-32-amd64/modules.dep": "kernel/fs/ext4/ext4.ko: \n",
        "/run/systemd/system/.keep": "",
        "/run/reboot-required": "*** System restart required ***\n",
        "/run/reboot-required.pkgs": "linux-image-6.1.0-32-amd64\nlinux-image-6.1.0-32-amd64\n",
        "/etc/cdi/nvidia.yaml": CDI,
        "/usr/bin/nvidia-ctk": { program: "" },
        "/usr/bin/nvidia-container-runtime-hook": { program: "" },
        "/etc/nvidia-container-runtime/config.toml":
          '[nvidia-container-cli]\n#no-cgroups = true\nno-cgroups = false\n[nvidia-container-runtime]\nmode = "cdi"\n',
        ...APT,
        "/usr/bin/unattended-upgrade": { program: "" },
        "/var/lib/dpkg/status": [
          stanza("nvidia-driver"),
          stanza("libcuda1"),
          stanza("nvidia-kernel-dkms", "hold ok installed"),
          stanza("libnvidia-cfg1"),
          stanza("nvidia-driver-libs", "deinstall ok config-files"),
          stanza("zlib1g"),
        ].join("\n"),
        "/etc/systemd/system/gpunode.service":
          "[Service]\nUser=gpunode\nSupplementaryGroups=docker\nAmbientCapabilities=CAP_SYSLOG CAP_NET_ADMIN\n",
        "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\ngpunode:x:990:990::/var/lib/gpunode:/usr/sbin/nologin\n",
        "/etc/group": "root:x:0:\ndocker:x:120:me\ngpunode:x:990:\n",
        "/var/log/kern.log": "",
      },
      says: {
        [SERVICE_SHOWN]: {
          code: 0,
          stdout:
            "UnitFileState=disabled\nActiveState=inactive\nResult=success\nNRestarts=0\nNeedDaemonReload=no\nUser=gpunode\nSupplementaryGroups=docker\nAmbientCapabilities=cap_net_admin cap_syslog\n",
          stderr: "",
        },
        "timedatectl show --property=NTPSynchronized --property=NTP --property=CanNTP": {
          code: 0,
          stdout: "NTPSynchronized=no\nNTP=no\nCanNTP=yes\n",
          stderr: "",
        },
      },
    });
    return await lookOver(staged);
  }

  it("is told of it, and of all that lies around it", async () => {
    const { report, of } = await server();
    expect(report.machine).toEqual({
      hostname: "tower",
      os: "Debian GNU/Linux 12 (bookworm)",
      kernel: "6.1.0-31-amd64",
    });
    expect(of("driver-match")).toBe("failure: the kernel runs module 535.247.01, the library is 535.261.03");
    expect(of("nvidia-smi")).toMatch(/^failure: .*different versions/);
    expect(of("driver-next-boot")).toBe(
      "warning: kernel 6.1.0-32-amd64 is installed and has no NVIDIA module; 6.1.0-31-amd64 runs now",
    );
    expect(of("reboot-required")).toBe("note: a reboot is due: for linux-image-6.1.0-32-amd64");
    expect(of("nouveau")).toBe("ok: every board is NVIDIA's driver's");
    expect(of("driver-upgrades")).toBe(
      "warning: unattended-upgrades may upgrade nvidia-driver and libcuda1 while work runs",
    );
    expect(of("service")).toBe("warning: the service does not start at boot");
    expect(of("clock")).toBe("warning: nothing synchronizes the clock");
    expect(of("daemon")).toMatch(/^failure: the daemon does not run/);
    expect(of("persistence-mode")).toBe("skipped: no GPU answers");
  });
});

describe("an Ubuntu laptop behind a VPN", () => {
  it("is told that it falls asleep, and that packets do not fit", async () => {
    const { of } = await lookOver(
      stage({
        scenario: JSON.stringify({ driver: "550.163.01", gpus: [{ model: "rtx-3080", pcieWidth: 8 }] }),
        files: {
          "/etc/os-release": UBUNTU,
          "/proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
          "/proc/driver/nvidia/version": PROC_DRIVER_OPEN,
          "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01": "",
          "/sys/module/nouveau/.keep": "",
          "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
          "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
          "/sys/bus/pci/devices/0000:01:00.0/driver": { link: "../../drivers/nvidia" },
          "/run/systemd/system/.keep": "",
          "/usr/lib/systemd/system/nvidia-persistenced.service":
            "[Service]\nExecStart=/usr/bin/nvidia-persistenced --user nvidia-persistenced --no-persistence-mode --verbose\n",
          "/proc/acpi/button/lid/LID0/state": "state:      open\n",
          "/etc/systemd/logind.conf": "[Login]\n#HandleLidSwitch=suspend\nHandleLidSwitchExternalPower=ignore\n",
          "/etc/systemd/logind.conf.d/50-idle.conf": "[Login]\nIdleAction=suspend\nIdleActionSec=20min\n",
          "/etc/systemd/system/display-manager.service": { link: "/usr/lib/systemd/system/gdm.service" },
          "/etc/systemd/system/hibernate.target": { link: "/dev/null" },
          "/proc/net/route":
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\nwg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\nwg0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\nwlp3s0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\ndocker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n",
          "/sys/class/net/wg0/mtu": "1420\n",
          "/sys/class/net/wlp3s0/mtu": "1500\n",
          "/sys/class/net/docker0/mtu": "1500\n",
          "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
          "/proc/sys/net/ipv4/ip_local_reserved_ports": "8080,9148-9200\n",
          "/proc/net/tcp":
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 21012 1 0000000000000000 100 0 0 10 0\n   1: 0100007F:7531 0100007F:A000 01 00000000:00000000 00:00000000 00000000  1000        0 21013 1 0000000000000000 20 4 30 10 -1\n",
          "/proc/meminfo":
            "MemTotal:       16000000 kB\nMemFree:          500000 kB\nMemAvailable:     400000 kB\nSwapTotal:       2000000 kB\nSwapFree:        1500000 kB\n",
          "/proc/pressure/memory": "some avg10=3.00 avg60=0.00 avg300=0.00 total=0\n",
          "/var/log/kern.log": "",
        },
      }),
    );
    expect(of("sleep")).toBe(
      "warning: closing the lid puts it to sleep, logind's IdleAction is suspend and a desktop is installed, and desktops put an idle machine to sleep",
    );
    expect(of("mtu")).toBe("warning: docker0 has 1500 bytes, wg0 carries only 1420");
    expect(of("host-ports")).toBe("note: of 30000-30999 somebody else has 30000; they are left out");
    expect(of("memory")).toBe("warning: only 390 MiB of 15 GiB are available");
    expect(of("driver-match")).toBe("ok: both are 550.163.01");
    expect(of("nouveau")).toBe("warning: nouveau is loaded, though it holds no board now");
    expect(of("pcie-link")).toMatch(/^note: GPU 0 runs at ×8, of ×16$/);
    expect(of("nvidia-smi")).toBe("ok: 1 × NVIDIA GeForce RTX 3080, driver 550.163.01");
    expect(of("service")).toMatch(/^note: the service is not installed/);
  });
});

describe("an engine", () => {
  it("is asked how it is set up", async () => {
    const staged = stage({
      scenario: "rtx4090x2",
      files: {
        "/etc/os-release": DEBIAN,
        "/usr/bin/nvidia-ctk": { program: "" },
        "/usr/bin/nvidia-container-runtime-hook": { program: "" },
        "/etc/nvidia-container-runtime/config.toml": "[nvidia-container-cli]\nno-cgroups = true\n",
        "/etc/docker/daemon.json": "{ }",
        "/etc/cdi/nvidia.yaml": CDI,
      },
      config: 'docker = { socket = "/d.sock" }\n',
    });
    await using engine = await fakeEngine({
      "GET /version": json({
        Version: "24.0.7",
        ApiVersion: "1.43",
        Components: [{ Name: "Engine" }],
        Platform: { Name: "Docker Engine - Community" },
      }),
      "GET /info": json({
        Driver: "vfs",
        DriverStatus: [["Backing Filesystem", "extfs"]],
        CgroupVersion: "1",
        CgroupDriver: "systemd",
        LiveRestoreEnabled: false,
        DockerRootDir: "/var/lib/docker",
        Runtimes: { runc: {} },
        SecurityOptions: ["name=seccomp,profile=builtin"],
        MemoryLimit: true,
        CpuCfsQuota: true,
        PidsLimit: false,
      }),
    });
    execFileSync("ln", ["-s", engine.socketPath, join(staged.root, "d.sock")]);
    const { of } = await lookOver(staged);
    expect(of("engine")).toBe("ok: Docker Engine - Community 24.0.7 at /d.sock");
    expect(of("engine-demands")).toMatch(/^failure: .*cannot limit pids/);
    expect(of("cgroups")).toBe("note: control groups are of version 1, driver systemd");
    expect(of("live-restore")).toMatch(/^note/);
    expect(of("storage-driver")).toBe("warning: the storage driver is vfs");
    expect(of("disk-limits")).toMatch(/^note: vfs on extfs cannot hold/);
    expect(of("gpu-runtime")).toMatch(/^failure: no-cgroups = true/);
    expect(of("cdi-spec")).toMatch(/^warning: \/etc\/cdi\/nvidia\.yaml is of driver 535\.216\.01, this one is 550/);
    expect(of("gpu-in-container")).toBe("skipped: --no-containers was given");
  });

  it("that is Podman is told apart", async () => {
    const staged = stage({ scenario: "t4", files: {}, config: 'docker = { socket = "/d.sock" }\n' });
    await using engine = await fakeEngine({
      "GET /version": json({
        Version: "4.3.1",
        ApiVersion: "1.41",
        Components: [{ Name: "Podman Engine" }, { Name: "Conmon" }],
      }),
      "GET /info": json({ Driver: "overlay", CgroupVersion: "2", CgroupDriver: "systemd" }),
    });
    execFileSync("ln", ["-s", engine.socketPath, join(staged.root, "d.sock")]);
    const { of } = await lookOver(staged);
    expect(of("engine-version")).toBe("failure: it is Podman 4.3.1, which ignores GPU requests");
  });

  it("whose configuration is broken, and that is away for it", async () => {
    const { of } = await lookOver(
      stage({
        scenario: "t4",
        files: { "/etc/docker/daemon.json": '{ "runtimes": { }', "/usr/sbin/dockerd": { program: "" } },
      }),
    );
    expect(of("engine")).toMatch(/^failure: .*daemon\.json is no JSON/);
  });
});

describe("files", () => {
  it.runIf(isRoot)("of devices and their links are found", async () => {
    const staged = stage({
      scenario: "t4",
      files: { "/dev/char/195:255": { link: "../nvidiactl" }, "/etc/os-release": DEBIAN },
    });
    const node = (name: string, minor: string) =>
      execFileSync("mknod", [join(staged.root, "dev", name), "c", "195", minor]);
    node("nvidia0", "0");
    node("nvidiactl", "255");
    chmodSync(join(staged.root, "dev/nvidia0"), 0o666);
    chmodSync(join(staged.root, "dev/nvidiactl"), 0o660);
    const { of } = await lookOver(staged);
    expect(of("device-files")).toMatch(/^warning: \/dev\/nvidiactl is closed to ordinary users/);
    chmodSync(join(staged.root, "dev/nvidiactl"), 0o666);
    expect((await lookOver(staged)).of("device-files")).toBe("note: /dev/nvidia-uvm is not there");
  });

  it.runIf(isRoot)("of the state are looked at with the daemon's eyes", async () => {
    const staged = stage({
      scenario: "t4",
      files: {
        "/state/identity.pem": "key",
        "/etc/passwd": "root:x:0:0::/root:/bin/sh\ngpunode:x:990:990::/:/bin/false\n",
        "/etc/systemd/system/gpunode.service": "[Service]\nUser=gpunode\n",
      },
      config: 'state_dir = "/state"\n',
    });
    chmodSync(join(staged.root, "state"), 0o700);
    expect((await lookOver(staged)).of("state-dir")).toBe(
      "failure: /state belongs to uid 0, and the daemon runs as gpunode (990)",
    );
    chownSync(join(staged.root, "state"), 990, 990);
    chmodSync(join(staged.root, "state/identity.pem"), 0o644);
    expect((await lookOver(staged)).of("state-dir")).toBe("warning: others may read /state/identity.pem");
    chmodSync(join(staged.root, "state/identity.pem"), 0o600);
    expect((await lookOver(staged)).of("state-dir")).toBe("ok: /state is gpunode's alone");
  });

  it("written to measure the disk are gone again", async () => {
    const staged = stage({ scenario: "t4", files: {}, config: 'state_dir = "/state"\n' });
    mkdirSync(join(staged.root, "state"));
    const { report, of } = await lookOver(staged);
    expect(of("disk-speed")).toMatch(/^(ok|warning): \d+ MiB\/s at \/state, [\d.]+ ms for a small write$/);
    expect(report.checks.find(({ id }) => id === "disk-space")?.found).toMatch(/\/state/);
    expect(execFileSync("ls", ["-A", join(staged.root, "state")]).toString()).toBe("");
  });
});

describe("a doctor that is interrupted", () => {
  it("says so, and has ended what it began", async () => {
    const staged = stage({ files: {}, scenario: '{"gpus":[{"model":"t4"}],"faults":[{"kind":"hang"}]}' });
    const stop = new AbortController();
    const looking = examine(CHECKS, staged.doors, { signal: stop.signal });
    const hanging = () =>
      readdirSync("/proc").filter((pid) => {
        try {
          const text = readFileSync(`/proc/${pid}/environ`, "latin1");
          return /^\d+$/.test(pid) && Number(pid) !== process.pid && text.includes(`HOME=${staged.root}`);
        } catch {
          return false;
        }
      });
    await patiently(() => (hanging().length > 0 ? true : undefined));
    stop.abort();
    const { report } = await looking;
    const told = report.checks.find(({ id }) => id === "gpu-health");
    expect(`${told?.verdict}: ${told?.found}`).toBe("skipped: it was interrupted");
    await patiently(() => (hanging().length === 0 ? true : undefined));
  });
});

describe("a machine that tells nothing", () => {
  it("is looked over all the same, in time, and nothing of it is called well that was not seen", async () => {
    const { report, of } = await lookOver(stage({ files: {} }));
    expect(of("nvidia-smi")).toMatch(/^warning: .*was not found.*The PCI bus has no NVIDIA board/);
    const seen = report.checks.filter(({ verdict }) => verdict === "ok").map(({ id }) => id);
    expect(seen).toEqual(["config", "disk-space", "state-dir", "platform", "driver-upgrades"]);
    expect(report.checks.filter(({ found }) => /undefined|NaN|\[object/.test(found))).toEqual([]);
  });

  it("and one whose files are garbage", async () => {
    const garbage = "\u0000\u001b[2J{{{{ -1 99999999999999999999 \n".repeat(50);
    const paths = [
      ...[
        "/etc/os-release",
        "/proc/driver/nvidia/version",
        "/proc/meminfo",
        "/proc/pressure/memory",
        "/proc/net/route",
      ],
      ...["/proc/net/tcp", "/proc/net/tcp6", "/proc/self/mountinfo", "/proc/sys/net/ipv4/ip_local_port_range"],
      ...["/proc/sys/net/ipv4/ip_local_reserved_ports", "/etc/passwd", "/etc/group", "/var/lib/dpkg/status"],
      ...["/etc/apt/apt.conf.d/50unattended-upgrades", "/etc/cdi/nvidia.yaml", "/etc/docker/daemon.json"],
      ...[
        "/etc/nvidia-container-runtime/config.toml",
        "/etc/systemd/logind.conf",
        "/var/log/kern.log",
        "/var/run/docker.pid",
      ],
      ...[
        "/lib/modules/x/modules.dep",
        "/sys/kernel/iommu_groups/0/type",
        "/run/reboot-required.pkgs",
        "/run/systemd/system/x",
      ],
      ...["/etc/systemd/system/gpunode.service", "/sys/class/net/docker0/mtu", "/usr/bin/unattended-upgrade"],
    ];
    const { report } = await lookOver(
      stage({
        files: Object.fromEntries(paths.map((path) => [path, garbage])),
        scenario: '{"gpus":[],"faults":[{"kind":"garbage"}]}',
      }),
    );
    expect(report.checks.filter(({ found }) => /undefined|NaN|\[object/.test(found))).toEqual([]);
    // Nor does it steer the terminal of who reads it.
    const words = doctorInWords(report, { verbose: true, command: "gpunode doctor" });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those are looked for
    expect(words).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
  });
});
