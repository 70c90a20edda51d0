import { describe, expect, it } from "vitest";
import { EventBody } from "../../src/protocol/event.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { Workload } from "../../src/protocol/workload.ts";
import type { Policy } from "../../src/workload/admit.ts";
import { containerSpec } from "../../src/workload/container-spec.ts";
import { containerName, eventOf, recordKey, StoredWorkload, WorkloadRecord } from "../../src/workload/record.ts";

const SECRETS = { password: "hunter2-password", token: "tok-identity", env: "sk-very-secret" };

const policy: Policy = {
  images: ["*"],
  hostPorts: { from: 30_000, to: 30_099 },
  hostIp: "127.0.0.1",
  reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
  allowRoot: true,
  pullNoProgressMs: 1000,
  preemptWithinMs: 120_000,
  priorityPreemption: true,
};

function recordOf(input: object, changes: Partial<WorkloadRecord> = {}): WorkloadRecord {
  const spec = StoredWorkload.parse(Workload.parse({ id: "w", generation: 1, image: "a", ...input }));
  const { id, generation } = spec;
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 1 };
  return { id, generation, spec, state: "accepted", ...base, ...changes };
}

describe("what lies on disk", () => {
  it.each([
    { registryAuth: { username: "u", password: SECRETS.password } },
    { registryAuth: { identityToken: SECRETS.token } },
    { secretEnv: { API_KEY: SECRETS.env } },
  ])("has no secret of %j", (secret) => {
    const workload = Workload.parse({ id: "w", generation: 1, image: "a", ...secret });
    const record = recordOf({});
    const text = JSON.stringify(WorkloadRecord.parse({ ...record, spec: workload }));
    for (const value of Object.values(SECRETS)) expect(text).not.toContain(value);
    expect(text).not.toContain("API_KEY");
  });

  it("comes back as it was", () => {
    const record = recordOf(
      { env: { A: "b" }, caches: [{ name: "models", path: "/models" }] },
      {
        state: "stopping",
        stop: { outcome: "preempted", reason: "owner", graceSeconds: 3, preemption: { cause: "owner", noticeSeq: 7 } },
        containerId: "c1",
        ports: [{ container: 80, host: 30_000, protocol: "tcp" }],
        timings: { pullMs: 1 },
      },
    );
    expect(WorkloadRecord.parse(JSON.parse(JSON.stringify(record)))).toEqual(record);
  });
});

describe("names", () => {
  it("are one for each generation and can't be mistaken for each other", () => {
    const records = ["a", "a-1", "a.1", "A"].flatMap((id) => [1, 11, 2].map((generation) => ({ id, generation })));
    expect(new Set(records.map(recordKey)).size).toBe(records.length);
    expect(new Set(records.map((record) => containerName(record, "node"))).size).toBe(records.length);
  });
});

describe("the event that tells a record", () => {
  it("leaves out what is not known", () => {
    expect(eventOf(recordOf({}))).toEqual({ kind: "workload", workload: "w", generation: 1, state: "accepted" });
  });

  it("fits the wire contract with everything in it", () => {
    const event = eventOf(
      recordOf(
        {},
        {
          state: "failed",
          reason: "exit_code",
          message: "exited with code 3",
          exitCode: 3,
          oomKilled: false,
          healthy: false,
          restarts: 2,
          containerId: "c1",
          imageDigest: "sha256:00",
          gpus: ["GPU-1"],
          ports: [{ container: 80, host: 30_000 }],
          timings: { pullMs: 1, createMs: 2, startMs: 3 },
        },
      ),
    );
    expect(EventBody.parse(event)).toEqual(event);
    expect(Object.keys(event)).toHaveLength(15);
  });
});

describe("the container of a record", () => {
  const limits = { cpus: 2, memoryMiB: 512, shmMiB: 256, pids: 100, diskMiB: 1024 };
  const node = { policy, nodeId: "n1", limits };

  it("is made from the image that was pulled and checked, not from a tag that may have moved", () => {
    expect(containerSpec(recordOf({ image: "a:latest" }, { imageId: "sha256:1" }), undefined, node).image).toBe(
      "sha256:1",
    );
  });

  it("gets the secret environment over the plain one", () => {
    const record = recordOf({ env: { A: "plain", B: "kept" } });
    const secret = new Secret("s3cret");
    const { env } = containerSpec(record, { secretEnv: { A: secret } }, node);
    expect(env.A).toBe(secret);
    expect(env.B).toBe("kept");
  });

  it("is told where a notice will be, whatever the workload calls so", () => {
    const record = recordOf({ env: { GPUNODE_PREEMPTION_FILE: "/elsewhere" } });
    const secrets = { secretEnv: { GPUNODE_PREEMPTION_FILE: new Secret("/nowhere") } };
    expect(containerSpec(record, secrets, node)).toMatchObject({
      env: { GPUNODE_PREEMPTION_FILE: "/run/gpunode/preemption.json" },
      inbox: "/run/gpunode",
    });
  });

  /** Names of the volumes a workload's caches lie in. */
  const volumes = (input: object) => containerSpec(recordOf(input), undefined, node).volumes.map(({ name }) => name);
  const cache = (name: string) => ({ caches: [{ name, path: "/c" }] });

  it("shares the caches of one owner between that owner's workloads", () => {
    expect(volumes({ id: "w1", owner: "acme", ...cache("m") })).toEqual(
      volumes({ id: "w2", owner: "acme", ...cache("m") }),
    );
  });

  it.each([
    ["a dash in the owner's or the cache's name", { owner: "a-b", ...cache("c") }, { owner: "a", ...cache("b-c") }],
    ["a workload named like an owner", { id: "acme", ...cache("m") }, { id: "w2", owner: "acme", ...cache("m") }],
    ["two workloads without owner", { id: "w1", ...cache("m") }, { id: "w2", ...cache("m") }],
  ])("never shares a cache between strangers: %s", (_, one, other) => {
    expect(volumes(one)).not.toEqual(volumes(other));
  });

  it.each([
    { owner: "a".repeat(63), ...cache("b".repeat(63)) },
    { id: "A.b_c-1", ...cache("M.x_1") },
  ])("names volumes as the engine takes them (%#)", (input) => {
    for (const name of volumes(input)) expect(name).toMatch(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}$/);
  });
});

it.each([
  ["a time that no date can be", { acceptedAt: 9e15 }],
  ["a deadline that no date can be", { notice: { cause: "owner", noticedAt: 1, deadlineAt: 1e300 } }],
  ["a generation below zero", { generation: -1 }],
  ["half an exit code", { exitCode: 0.5 }],
])("a record with %s is none", (_what, changes) => {
  const record = recordOf({});
  expect(WorkloadRecord.safeParse(record).success).toBe(true);
  expect(WorkloadRecord.safeParse({ ...record, ...changes }).success).toBe(false);
});
