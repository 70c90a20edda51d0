import { describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { admit, type NodeFacts, type Policy, requireEffectiveUser } from "../../src/workload/admit.ts";

const policy: Policy = {
  images: ["ghcr.io/acme/*", "alpine:*"],
  hostPorts: { from: 30_000, to: 30_003 },
  hostIp: "127.0.0.1",
  reserve: { cpus: 1, memoryMiB: 1024, diskMiB: 2048 },
  allowRoot: true,
  pullNoProgressMs: 1000,
  preemptWithinMs: 120_000,
  priorityPreemption: true,
};

const node: NodeFacts = {
  gpus: [],
  holders: new Map(),
  kept: new Map(),
  policy,
  cpus: 8,
  memoryMiB: 16_384,
  diskFreeMiB: 10_000,
  live: [],
};

const workload = (input: object = {}) => Workload.parse({ id: "w", generation: 1, image: "alpine:3", ...input });

function refusal(input: object, facts: Partial<NodeFacts> = {}): GpunodeError {
  try {
    admit(workload(input), { ...node, ...facts });
  } catch (error) {
    if (error instanceof GpunodeError) return error;
    throw error;
  }
  throw new Error("it was admitted");
}

const withPolicy = (changes: Partial<Policy>) => ({ policy: { ...policy, ...changes } });
const ports = (...numbers: number[]) => ({ ports: numbers.map((container) => ({ container })) });

describe("admission", () => {
  it("takes what fits", () => {
    const resources = { cpus: 7, memoryMiB: 15_360, diskMiB: 7952 };
    expect(admit(workload({ resources, ...ports(1, 2, 3, 4) }), node)).toEqual({
      gpus: [],
      limits: { ...resources, shmMiB: 7680, pids: 4096 },
    });
  });

  it.each<[string, object, Partial<NodeFacts>, string, RegExp]>([
    ["while draining", {}, { heldBack: "drained by its owner" }, "draining", /new: drained by its owner/],
    ["without an engine", {}, { engineProblem: "no socket /x" }, "engine_unavailable", /no socket \/x/],
    ["where isolation does not hold", {}, { isolationProblem: "nft is away" }, "policy_denied", /nft is away/],
    [
      "an image that is not allowed",
      { image: "docker.io/x" },
      {},
      "image_not_allowed",
      /ghcr\.io\/acme\/\*, alpine:\*; docker\.io\/x/,
    ],
    ["any image where none is", {}, withPolicy({ images: [] }), "image_not_allowed", /allows no image/],
    ["an image that is none", { image: "UPPER case" }, {}, "invalid_spec", /UPPER case/],
    ["root by name", { user: "root" }, withPolicy({ allowRoot: false }), "policy_denied", /allow_root/],
    ["root by number", { user: "0:1000" }, withPolicy({ allowRoot: false }), "policy_denied", /allow_root/],
    [
      "one workload too many",
      {},
      { ...withPolicy({ maxWorkloads: 1 }), live: [{ id: "o", memoryMiB: 0, ports: 0 }] },
      "policy_denied",
      /max_workloads is 1 and 1 are/,
    ],
    [
      "more ports than the range has",
      ports(1, 2, 3, 4, 5),
      {},
      "policy_denied",
      /5 ports asked for.*30000-30003 has 4 of 4 left/,
    ],
    [
      "more ports than others left",
      ports(1, 2),
      { live: [{ id: "o", memoryMiB: 0, ports: 3 }] },
      "policy_denied",
      /2 ports asked for.*has 1 of 4 left/,
    ],
    ["the same port twice", ports(80, 80), {}, "invalid_spec", /80\/tcp is listed twice/],
    [
      "more CPUs than are lent",
      { resources: { cpus: 7.5 } },
      {},
      "policy_denied",
      /7\.5 CPUs asked for; this node lends 7 /,
    ],
    [
      "more memory than is lent",
      { resources: { memoryMiB: 15_361 } },
      {},
      "insufficient_memory",
      /15361 MiB.*15360 MiB are free/,
    ],
    [
      "more memory than others left",
      { resources: { memoryMiB: 400 } },
      { live: [{ id: "o", memoryMiB: 15_000, ports: 0 }] },
      "insufficient_memory",
      /400 MiB.*360 MiB are free.*15000 MiB promised/,
    ],
    [
      "more shared memory than memory",
      { resources: { memoryMiB: 64, shmMiB: 65 } },
      {},
      "invalid_spec",
      /shmMiB 65.*64/,
    ],
    [
      "more disk than is free",
      { resources: { diskMiB: 7953 } },
      {},
      "insufficient_disk",
      /7953 MiB.*7952 MiB are free/,
    ],
    [
      "a tag where only digests run",
      {},
      withPolicy({ digestOnly: true }),
      "image_not_allowed",
      /policy\.digest_only is true and alpine:3 is no digest/,
    ],
    [
      "a cache where none is kept",
      { caches: [{ name: "models", path: "/m" }] },
      withPolicy({ forbidCaches: true }),
      "policy_denied",
      /policy\.allow_caches is false.*"models"/,
    ],
    ...Object.entries({
      cpus: { resources: { cpus: 3 } },
      memory_mib: { resources: { memoryMiB: 3 * 6 } },
      shm_mib: { resources: { shmMiB: 3 } },
      disk_mib: { resources: { diskMiB: 3 } },
      pids: { resources: { pids: 3 } },
      ports: ports(1, 2, 3),
      run_seconds: { maxRuntimeSeconds: 3 },
    }).map(([key, input]): [string, object, Partial<NodeFacts>, string, RegExp] => [
      `more ${key} than one may have`,
      input,
      withPolicy({ max: { cpus: 2, memoryMiB: 7, shmMiB: 2, diskMiB: 2, pids: 2, ports: 2, runSeconds: 2 } }),
      "policy_denied",
      new RegExp(`\\d .* asked for; policy\\.max\\.${key} allows \\d$`),
    ]),
    [
      "everything where the engine lacks what nobody may be without",
      {},
      { engineLacks: 'policy.runtime is "runsc" and the container engine has runc' },
      "policy_denied",
      /policy\.runtime/,
    ],
    [
      "who names no CPUs where none are lent",
      {},
      withPolicy({ reserve: { cpus: 8, memoryMiB: 0, diskMiB: 0 } }),
      "policy_denied",
      /lends no CPUs: policy\.reserve\.cpus 8/,
    ],
    [
      "who names no memory where none is lent",
      {},
      withPolicy({ reserve: { cpus: 0, memoryMiB: 16_384, diskMiB: 0 } }),
      "insufficient_memory",
      /lends 0 MiB.*policy\.reserve\.memory_mib 16384/,
    ],
    ["a GPU where there is none", { gpus: { count: 1 } }, {}, "no_matching_gpu", /1 GPU asked for/],
  ])("refuses %s", (_, input, facts, code, says) => {
    const error = refusal(input, facts);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(says);
  });

  it("takes tcp and udp on the same container port", () => {
    const both = { ports: [{ container: 53 }, { container: 53, protocol: "udp" }] };
    expect(() => admit(workload(both), node)).not.toThrow();
  });

  it("asks no disk of a node that cannot tell its own", () => {
    const { diskFreeMiB: _, ...unknown } = node;
    expect(() => admit(workload({ resources: { diskMiB: 10 ** 6 } }), unknown)).not.toThrow();
  });

  it("never speaks of less than nothing", () => {
    const reserveAll = withPolicy({ reserve: { cpus: 99, memoryMiB: 99_999, diskMiB: 99_999 } });
    expect(refusal({ resources: { cpus: 1 } }, reserveAll).message).toContain("lends 0");
    expect(refusal({ resources: { memoryMiB: 6 } }, reserveAll).message).toContain("0 MiB are free");
    expect(refusal({ resources: { diskMiB: 1 } }, reserveAll).message).toContain("0 MiB are free");
  });
});

describe("the user a container really gets", () => {
  const strict = { ...policy, allowRoot: false };

  it.each<[string | undefined, string, string]>([
    ["1000", "", "numbers are what they say"],
    ["1000:1000", "", "with a group"],
    [undefined, "65534", "the image's own"],
  ])("%j over image user %j is no root: %s", (user, imageUser) => {
    expect(() => requireEffectiveUser(user, imageUser, strict)).not.toThrow();
  });

  it.each<[string | undefined, string, string]>([
    [undefined, "", "an image without USER"],
    [undefined, "root", "the image's own"],
    ["0", "1000", "the workload's word over the image's"],
    ["00", "1000", "zero is zero"],
    ["root:users", "1000", "with a group"],
    // The engine reads the number as Go's strconv.Atoi does, which takes a sign.
    ["+0", "1000", "zero with a sign"],
    ["-0", "1000", "zero with a sign"],
    // Without a user before the colon the engine takes root.
    [":1000", "1000", "a group alone"],
    // Which number a name has is said by the image's own /etc/passwd: it may be 0.
    ["app", "1000", "a name"],
    [undefined, "app", "a name in the image"],
  ])("%j over image user %j may be root: %s", (user, imageUser) => {
    expect(() => requireEffectiveUser(user, imageUser, strict)).toThrow(/allow_root/);
    expect(() => requireEffectiveUser(user, imageUser, policy)).not.toThrow();
  });
});
