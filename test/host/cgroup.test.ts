import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ownerOf, ownerOfProcess, startTicks } from "../../src/host/cgroup.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";

const id = "0123456789abcdef".repeat(4);
const other = "fedcba9876543210".repeat(4);

describe("the owner of a process", () => {
  it.each([
    ["Docker, cgroup v2 with systemd", `0::/system.slice/docker-${id}.scope\n`],
    ["Docker, cgroup v2 with cgroupfs", `0::/docker/${id}\n`],
    ["Docker, cgroup v1", `12:memory:/docker/${id}\n3:cpu,cpuacct:/docker/${id}\n1:name=systemd:/docker/${id}\n`],
    ["Docker, hybrid, v2 half empty", `0::/\n1:name=systemd:/docker/${id}\n`],
    ["a parent of its own", `0::/gpunode0/${id}\n`],
    ["rootless Docker", `0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-${id}.scope\n`],
    ["podman", `0::/machine.slice/libpod-${id}.scope/container\n`],
    ["podman, its own cgroup driver", `0::/libpod_parent/libpod-${id}\n`],
    [
      "containerd under Kubernetes",
      `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/cri-containerd-${id}.scope\n`,
    ],
    ["Kubernetes with cgroupfs", `4:memory:/kubepods/besteffort/pod8a1f/${id}\n`],
    ["CRI-O", `0::/kubepods.slice/crio-${id}.scope\n`],
    ["a process in a cgroup below the container's", `0::/docker/${id}/init\n`],
    ["a service inside a container", `0::/docker/${id}/system.slice/cron.service\n`],
    ["Docker in Docker: the inner one", `0::/docker/${other}/docker/${id}\n`],
  ])("is the container with %s", (_, text) => {
    expect(ownerOf(text)).toEqual({ container: id });
  });

  it.each([
    ["0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"],
    ["0::/system.slice/gdm.service\n", "gdm.service"],
    ["0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-steam@1.service\n", "app-steam@1.service"],
    ["12:memory:/\n1:name=systemd:/system.slice/xorg.service\n", "xorg.service"],
  ])("is the unit otherwise: %j", (text, unit) => {
    expect(ownerOf(text)).toEqual({ unit });
  });

  it.each([
    "",
    "garbage",
    "0::/\n",
    `0::/docker/${id.slice(0, 12)}\n`,
    `0::/docker/${id}ff\n`,
    `0::/docker/${id.toUpperCase()}\n`,
    `0::docker/${id}\n`,
    "\u0000:::::\n",
  ])("is unknown where the text names nobody: %j", (text) => {
    expect(ownerOf(text)).toBeUndefined();
  });

  it("is not found for a process that is not there", () => {
    expect(ownerOfProcess(2 ** 22 + 1)).toBeUndefined();
    expect(startTicks(2 ** 22 + 1)).toBeUndefined();
  });
});

describe("the start of a process", () => {
  it("stays the same while it runs and differs from another's", async () => {
    const child = spawn("sleep", ["30"]);
    try {
      const pid = child.pid ?? 0;
      expect(startTicks(pid)).toMatch(/^\d+$/);
      expect(startTicks(pid)).toBe(startTicks(pid));
      expect(Number(startTicks(pid))).toBeGreaterThanOrEqual(Number(startTicks(process.pid)));
    } finally {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await gone;
    }
  });

  it("is read past a name that looks like the rest of the line", () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-proc-"));
    try {
      mkdirSync(join(dir, "7"));
      const fields = Array.from({ length: 50 }, (_, index) => String(1000 + index));
      writeFileSync(join(dir, "7/stat"), `7 (evil) S 1 2) R ${fields.join(" ")}\n`);
      expect(startTicks(7, dir)).toBe("1018");
      writeFileSync(join(dir, "7/stat"), "7 (short) S 1\n");
      expect(startTicks(7, dir)).toBeUndefined();
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe.runIf(haveEngine)("a real container", () => {
  it("is found by the process id that the engine tells", async () => {
    const image = await pushImage("host/cgroup:1", await smallImage());
    const engine = docker();
    await new Promise<void>((resolve, reject) => {
      void engine.pull(image, (error: unknown, stream: NodeJS.ReadableStream) => {
        if (error) reject(error as Error);
        else engine.modem.followProgress(stream, (failed) => (failed ? reject(failed) : resolve()));
      });
    });
    const container = await engine.createContainer({ Image: image, Cmd: ["sleep", "60"] });
    try {
      await container.start();
      const { State } = await container.inspect();
      expect(ownerOfProcess(State.Pid)).toEqual({ container: container.id });
    } finally {
      await container.remove({ force: true });
    }
  });
});
