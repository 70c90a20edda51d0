import { describe, expect, it } from "vitest";
import type { EngineInfo } from "../../src/protocol/agent-frames.ts";
import { engineLacks, mapsRoot } from "../../src/workload/engine-demands.ts";

const engine: EngineInfo = {
  kind: "docker",
  available: true,
  runtimes: ["io.containerd.runc.v2", "runc"],
  security: ["apparmor", "cgroupns", "seccomp"],
  limits: ["cpu", "memory", "pids"],
};

describe("what an engine lacks", () => {
  it("is nothing where it has all that is asked for", () => {
    expect(engineLacks(engine, {})).toEqual([]);
    expect(engineLacks({ ...engine, runtimes: ["runsc"] }, { runtime: "runsc" })).toEqual([]);
    expect(engineLacks({ ...engine, security: ["seccomp", "userns"] }, { userns: "require" })).toEqual([]);
    expect(engineLacks({ ...engine, security: ["rootless", "seccomp"] }, { userns: "require" })).toEqual([]);
  });

  it.each<[string, Partial<EngineInfo>, object, RegExp]>([
    ["no_seccomp", { security: ["apparmor"] }, {}, /filters no system calls/],
    ["no_limits", { limits: ["cpu", "pids"] }, {}, /cannot limit memory of a container.*cgroup_enable=memory/],
    ["no_limits", { limits: [] }, {}, /cannot limit cpu and memory and pids/],
    ["runtime_missing", {}, { runtime: "runsc" }, /policy\.runtime is "runsc".*has io\.containerd\.runc\.v2, runc/],
    ["userns_missing", {}, { userns: "require" }, /policy\.userns is "require".*userns-remap/],
  ])("is told: %s", (code, changes, policy, says) => {
    const [problem, ...others] = engineLacks({ ...engine, ...changes }, policy);
    expect(others).toEqual([]);
    expect(problem).toEqual({ code, message: expect.stringMatching(says) });
  });

  it("is not guessed at where it is away or has not told", () => {
    expect(engineLacks({ kind: "docker", available: false }, { runtime: "runsc", userns: "require" })).toEqual([]);
    expect(engineLacks({ kind: "docker", available: true }, { runtime: "runsc", userns: "require" })).toEqual([]);
  });

  it("root is an ordinary user where users are remapped or the engine has no root itself, and nowhere else", () => {
    expect(mapsRoot({ ...engine, security: ["userns"] })).toBe(true);
    expect(mapsRoot({ ...engine, security: ["rootless"] })).toBe(true);
    expect(mapsRoot(engine)).toBe(false);
    expect(mapsRoot({ kind: "docker", available: false })).toBe(false);
  });
});
