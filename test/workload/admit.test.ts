import { describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Workload } from "../../src/protocol/workload.ts";
import {
  admit,
  isImageReference,
  matchesPattern,
  type NodeFacts,
  type Policy,
  requireEffectiveUser,
} from "../../src/workload/admit.ts";

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
    expect(
      admit(workload({ resources: { cpus: 7, memoryMiB: 15_360, diskMiB: 7952 }, ...ports(1, 2, 3, 4) }), node),
    ).toEqual({
      gpus: [],
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

describe("patterns of images", () => {
  it.each([
    ["alpine", "alpine", true],
    ["alpine:3", "alpine", false],
    ["anything/at:all", "*", true],
    ["", "*", true],
    ["ghcr.io/acme/x:1", "ghcr.io/acme/*", true],
    ["ghcr.io/acmeevil/x", "ghcr.io/acme/*", false],
    ["evil.io/ghcr.io/acme/x", "ghcr.io/acme/*", false],
    ["a.b", "a?b", false],
    ["aXb", "a.b", false],
    ["ab", "ab*ba", false],
    ["aba", "ab*ba", false],
    ["abba", "ab*ba", true],
    ["a-b-c", "a*b*c", true],
    ["a-c-b", "a*b*c", false],
    ["abc", "a**c", true],
    ["x:cuda12-v1", "*cuda*-v1", true],
    ["(+)[a-z]\\", "(+)[a-z]\\", true],
    ["$", "^.*$", false],
  ])("%j against %j: %s", (text, pattern, matches) => {
    expect(matchesPattern(text, pattern)).toBe(matches);
  });

  it("take no time over hostile ones", () => {
    const began = performance.now();
    expect(matchesPattern("a".repeat(512), `${"a*".repeat(20_000)}b`)).toBe(false);
    expect(matchesPattern("a".repeat(100_000), `${"*a".repeat(1000)}*b`)).toBe(false);
    expect(performance.now() - began).toBeLessThan(500);
  });
});

describe("image references", () => {
  const DIGEST = `sha256:${"0a".repeat(32)}`;

  it.each([
    "alpine",
    "alpine:3.20",
    "library/alpine",
    "ghcr.io/acme/a-b_c/d__e:v1.2-rc.1",
    "localhost:5000/x",
    "127.0.0.1:5000/x:y",
    "[::1]:5000/x",
    "REGISTRY.example.COM/x",
    `alpine@${DIGEST}`,
    `ghcr.io/x/y:1@${DIGEST}`,
  ])("%s is one", (text) => {
    expect(isImageReference(text)).toBe(true);
  });

  it.each([
    "",
    "Alpine",
    ":tag",
    "alpine:",
    "alpine@sha256:abc",
    "alpine@md5:0123",
    "-x",
    "x-",
    "/x",
    "x/",
    "x y",
    "x\ny",
    "x\n",
    "x?tag=1",
    "x%2e",
    "x#1",
    "http://x/y",
    "x;rm -rf",
    `x:${"t".repeat(129)}`,
    "x".repeat(513),
    // Paths that mean something else once somebody puts them in a URL.
    "x//y",
    "x/../y",
    "ghcr.io/acme/../evil/x",
    "x/./y",
    "x/.y",
    "x..y",
  ])("%j is none", (text) => {
    expect(isImageReference(text)).toBe(false);
  });

  it("takes no time over hostile ones", () => {
    const began = performance.now();
    for (const part of ["a", "a.", "a-", "a/", "_", "a__", "1:", "[:", "a@"]) {
      isImageReference(`${part.repeat(512 / part.length)}!`);
      isImageReference(`${part.repeat(1_000_000)}!`);
    }
    expect(performance.now() - began).toBeLessThan(500);
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
