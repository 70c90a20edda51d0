import { readFileSync, readlinkSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { rootFileSystem } from "../../src/demo/root-layer.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import {
  neverAborted,
  openEngine,
  outputOf,
  pullOptions,
  pullSmallImage,
  removeAll,
  runToEnd,
  specFor,
  until,
} from "./harness.ts";

/** What `docs/security.md` says of the container, tried from inside by root, who is the strongest a tenant can be. */
describe.runIf(haveEngine)("a stranger in a container", { timeout: 120_000 }, () => {
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    engine = openEngine();
    image = await pullSmallImage(engine, `engine-test/hardening-${process.pid}:1`);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  describe("who is root inside", () => {
    let id = "";
    beforeAll(async () => {
      id = await engine.create(specFor(engine, image, "sleep 600", { pids: 100, shmMiB: 16 }));
      await engine.start(id);
    });
    afterAll(() => removeAll(engine));
    const inside = (command: string) =>
      engine.exec(id, ["/bin/sh", "-c", `${command} 2>&1`], { timeoutMs: 20_000, signal: neverAborted() });

    it.each([
      ["mounts a file system", "mount -t tmpfs none /mnt", /not permitted|denied/],
      ["makes a device of the host's disk", "mknod /disk b 8 0", /not permitted/],
      ["opens a raw socket", "arping -c 1 -I lo 127.0.0.1", /not permitted/],
      ["makes namespaces of its own", "unshare -m true", /not permitted/],
      ["becomes root in a namespace of its own", "unshare -U true", /not permitted/],
      ["changes its root folder", "chroot / true", /not permitted/],
      [
        "reads the memory of another user's process",
        "su -s /bin/sh nobody -c 'exec sleep 31' & sleep 0.5; cat /proc/$!/environ",
        /denied/,
      ],
      ["changes the kernel's core handler", "echo '|/tmp/x' >/proc/sys/kernel/core_pattern", /Read-only/],
      ["writes other kernel settings", "echo 1 >/proc/sys/vm/drop_caches", /Read-only/],
      ["presses the kernel's emergency keys", "echo h >/proc/sysrq-trigger", /Read-only|nonexistent/],
      ["changes its cgroup", "d=/sys/fs/cgroup; [ -d $d/memory ] && d=$d/memory; mkdir $d/mine", /Read-only/],
      ["writes to devices through /sys", "echo x >/sys/kernel/mm/transparent_hugepage/enabled", /Read-only/],
      ["reads the kernel's log", "dmesg", /not permitted/],
      ["sets the clock", "date -s 2000-01-01", /not permitted/],
      ["changes the network", "ip link set lo down", /not permitted/],
      ["names the host anew", "hostname pwned", /not permitted/],
      ["raises its limit of open files", "ulimit -Hn 1000000", /error|not permitted|exceed/i],
      ["loads a kernel module", "insmod /bin/busybox", /not permitted|denied|can't insert/],
      ["looks into the kernel's memory", "head -c 10 /proc/kcore 2>/dev/null | wc -c", /^0\n$/],
    ])("cannot: %s", async (_, command, seen) => {
      expect((await inside(command)).output).toMatch(seen);
    });

    // Only an engine with CAP_SYS_RESOURCE can set the least; in a sandbox that withholds it from root, nothing holds the value.
    it.runIf(hasCapability(24))("cannot save itself from the kernel's choice when memory runs out", async () => {
      const { output } = await inside("echo -1000 >/proc/self/oom_score_adj");
      expect(output).toMatch(/denied/);
    });

    it("shares no namespace with the machine", async () => {
      const kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
      const { output } = await inside(kinds.map((kind) => `readlink /proc/self/ns/${kind}`).join("; "));
      const own = output.trim().split("\n");
      expect(own).toHaveLength(kinds.length);
      for (const kind of kinds) expect(own).not.toContain(readlinkSync(`/proc/self/ns/${kind}`));
    });

    it("sees no device of the machine, no process of it, and no engine's socket", async () => {
      const devices = (await inside("ls /dev")).output
        .trim()
        .split(/\s+/)
        .filter((name) => name !== "core")
        .sort();
      // "core" is a link to /proc/kcore, where the kernel has one.
      const standard = ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"];
      expect(devices).toEqual([...standard, "stderr", "stdin", "stdout", "tty", "urandom", "zero"]);
      const pids = (await inside("ls /proc | grep -c '^[0-9]'")).output;
      expect(Number(pids)).toBeLessThan(10);
      expect((await inside("find / -name '*docker*.sock' -o -name containerd.sock")).output).not.toContain(".sock");
    });

    it("has nothing of the machine's disk mounted but files of the engine's own", async () => {
      const { output } = await inside("cat /proc/mounts");
      const disks = output
        .split("\n")
        .filter((line) => line.startsWith("/dev/"))
        .map((line) => line.split(" ")[1])
        .filter((path) => path !== "/sbin/docker-init");
      expect(disks.sort()).toEqual(["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
    });

    it("has few capabilities, none to gain, and its system calls are filtered", async () => {
      const { output } = await inside("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status");
      const read = Object.fromEntries(
        output
          .trim()
          .split("\n")
          .map((line) => line.split(/:\s+/) as [string, string]),
      );
      // Bits 0, 1, 3, 4, 5, 6, 7 and 10 of capabilities(7): the eight of container.ts.
      const eight = "00000000000004fb";
      expect(read).toMatchObject({ CapPrm: eight, CapEff: eight, CapBnd: eight, CapAmb: "0".repeat(16) });
      expect(read).toMatchObject({ NoNewPrivs: "1", Seccomp: "2" });
    });

    it("finds its limits set", async () => {
      const { output } = await inside("ulimit -c; ulimit -n; ulimit -Hn; cat /proc/1/oom_score_adj");
      expect(output).toBe("0\n16384\n16384\n500\n");
    });

    it("fills /dev/shm to its size and no further", async () => {
      const { output } = await inside("dd if=/dev/zero of=/dev/shm/x bs=1M count=64; wc -c </dev/shm/x; rm /dev/shm/x");
      expect(output).toContain("No space left");
      expect(output).toContain(String(16 * 1024 * 1024));
    });
  });

  describe("of its own", () => {
    afterEach(() => removeAll(engine));

    it("as an ordinary user has no capability at all, and a setuid program gives none", async () => {
      const programs = await rootFileSystem({ busybox: "none" });
      const cat = programs.flatMap((entry) =>
        entry.path === "/bin/cat" && "content" in entry ? [{ ...entry, path: "/suid/cat", mode: 0o4755 }] : [],
      );
      const libraries = programs.filter(({ path }) => !path.startsWith("/bin/") && !path.startsWith("/etc/"));
      const built = await smallImage({ files: [...libraries, ...cat] });
      const reference = await pushImage(`engine-test/suid-${process.pid}:1`, built);
      const { id: suid } = await engine.pull(reference, pullOptions());
      const read = "ls -l /suid/cat; /suid/cat /proc/self/status";
      const { output } = await runToEnd(engine, specFor(engine, suid, read, { user: "1000:1000" }));
      expect(output).toMatch(/^-rwsr-xr-x /);
      expect(output).toMatch(/^Uid:\t1000\t1000\t1000\t1000$/m);
      expect(output).toMatch(/^CapEff:\t0{16}$/m);
    });

    it("who forks without end stops at its limit, and the machine goes on", async () => {
      const bomb = "bomb() { bomb | bomb & }; (bomb) 2>&1 | head -c 4000; sleep 2; echo still here";
      const id = await engine.create(specFor(engine, image, bomb, { pids: 60, memoryMiB: 128 }));
      await engine.start(id);
      await until(async () => /can't fork|Resource temporarily/.test(await outputOf(engine, id)), 30_000);
      const { output } = await runToEnd(engine, specFor(engine, image, "echo the machine goes on"));
      expect(output).toBe("the machine goes on\n");
      await engine.kill(id, "SIGKILL");
      await engine.wait(id, AbortSignal.timeout(20_000));
    });

    it("who takes memory without end is killed at its limit, shared memory included", async () => {
      const hog = "dd if=/dev/zero of=/dev/shm/x bs=1M count=200; echo survived";
      const { state, output } = await runToEnd(engine, specFor(engine, image, hog, { memoryMiB: 32, shmMiB: 200 }));
      expect(state.oomKilled).toBe(true);
      expect(output).not.toContain("200+0 records out");
    });

    it("whose memory was promised to nobody goes first where the machine runs out", async () => {
      const spec = specFor(engine, image, "cat /proc/self/oom_score_adj", { memoryIsUnpromised: true });
      expect((await runToEnd(engine, spec)).output).toBe("1000\n");
    });

    it("with a read-only root writes to its caches, its inbox and a /tmp of bounded size, and nowhere else", async () => {
      const volumes = [{ name: `gpunode-cache-${engine.nodeId}-ro`, path: "/models" }];
      const script = [
        "for d in / /etc /bin /usr /var /run /dev; do touch $d/x 2>/dev/null && echo wrote $d; done",
        "touch /models/x && touch /run/gpunode/x && echo allowed",
        "dd if=/dev/zero of=/tmp/x bs=1M count=200 2>&1 | grep -c 'No space'",
        "wc -c </tmp/x; rm /tmp/x; cp /bin/busybox /tmp/echo && /tmp/echo ran",
      ].join("; ");
      const spec = specFor(engine, image, script, {
        readOnlyRoot: true,
        memoryMiB: 64,
        volumes,
        inbox: "/run/gpunode",
      });
      const { id, output } = await runToEnd(engine, spec);
      // /dev is a small tmpfs of the engine's, without devices but the standard ones.
      expect(output).toBe(`wrote /dev\nallowed\n1\n${32 * 1024 * 1024}\nran\n`);
      expect((await docker().getContainer(id).inspect()).HostConfig).toMatchObject({ ReadonlyRootfs: true });
      await removeAll(engine);
      await docker()
        .getVolume(volumes[0]?.name ?? "")
        .remove();
    });

    it("is to the engine what it is from inside", async () => {
      const id = await engine.create(specFor(engine, image, "true", { inbox: "/run/gpunode" }));
      const { HostConfig, AppArmorProfile, Mounts } = await docker().getContainer(id).inspect();
      expect(HostConfig).toMatchObject({
        Privileged: false,
        CapDrop: ["ALL"],
        SecurityOpt: ["no-new-privileges"],
        IpcMode: "private",
        PidMode: "",
        UTSMode: "",
        UsernsMode: "",
        CgroupnsMode: "private",
        Memory: 256 * 1024 * 1024,
        MemorySwap: 256 * 1024 * 1024,
        NanoCpus: 1e9,
        PidsLimit: 1000,
        ShmSize: 64 * 1024 * 1024,
        OomScoreAdj: 500,
        LogConfig: { Type: "json-file", Config: { "max-size": "20m", "max-file": "3" } },
      });
      expect(HostConfig.NetworkMode).not.toBe("host");
      for (const list of ["Binds", "Devices", "DeviceCgroupRules", "VolumesFrom", "GroupAdd"] as const) {
        expect((HostConfig as Record<string, unknown>)[list] ?? [], list).toEqual([]);
      }
      const { MaskedPaths, ReadonlyPaths } = HostConfig as unknown as Record<string, string[]>;
      expect(MaskedPaths).toEqual(expect.arrayContaining(["/proc/kcore", "/proc/keys", "/sys/firmware"]));
      expect(ReadonlyPaths).toEqual(expect.arrayContaining(["/proc/sys", "/proc/sysrq-trigger"]));
      expect(Mounts.map(({ Type, Destination }) => [Type, Destination])).toEqual([["volume", "/run/gpunode"]]);
      // Where the engine has AppArmor it uses its profile; where it has not, nobody says that it does.
      const { security = [] } = await engine.info();
      if (security.includes("apparmor")) expect(AppArmorProfile).toBe("docker-default");
      else expect(AppArmorProfile).toBe("");
      expect(security).toContain("seccomp");
    });
  });
});

/** Whether this process, and so an engine that it has started, has a capability; by its number in capabilities(7). */
function hasCapability(bit: number): boolean {
  const [, mask = "0"] = /^CapEff:\t([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return (BigInt(`0x${mask}`) & (1n << BigInt(bit))) !== 0n;
}

describe.runIf(haveEngine)("what a container has written", { timeout: 120_000 }, () => {
  it("is told with its layer, its inbox and its caches", async () => {
    await using engine = openEngine();
    const image = await pullSmallImage(engine, `engine-test/written-${process.pid}:1`);
    const volumes = [{ name: `gpunode-cache-${engine.nodeId}-w`, path: "/models" }];
    const write = (mib: number, path: string) => `dd if=/dev/zero of=${path} bs=1M count=${mib} 2>/dev/null`;
    const script = [write(3, "/data"), write(2, "/models/x"), write(1, "/run/gpunode/x"), "echo done; sleep 60"].join(
      "; ",
    );
    const id = await engine.create(specFor(engine, image, script, { volumes, inbox: "/run/gpunode" }));
    try {
      await engine.start(id);
      await until(async () => (await outputOf(engine, id)).includes("done"));
      const { containers, volumeBytes } = await engine.diskAccount(neverAborted());
      expect(containers.map((container) => container.id)).toEqual([id]);
      const mib = (bytes = 0) => Math.round(bytes / 1024 / 1024);
      expect(mib(containers[0]?.layerBytes)).toBe(3);
      const byPath = containers[0]?.volumes.map(({ name, path }) => [path, mib(volumeBytes.get(name))]) ?? [];
      expect(Object.fromEntries(byPath)).toEqual({ "/models": 2, "/run/gpunode": 1 });
    } finally {
      await removeAll(engine);
      await docker()
        .getVolume(volumes[0]?.name ?? "")
        .remove();
    }
    expect((await engine.diskAccount(neverAborted())).containers).toEqual([]);
  });
});
