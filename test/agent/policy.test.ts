import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, patiently, Site } from "./rig.ts";

const sh = (script: string) => ["sh", "-c", script];
/** How the workload ended, as its last event tells. */
const endOf = (view: WorkloadWithEvents) => course(view).last;
/** What the node said to it: by an event where it had been taken in, else by its answer, which the coordinator shows. */
const refusalOf = (site: Site, id: string, says: RegExp) =>
  patiently(async () => {
    const view = await site.client.workload(id);
    const told = [...view.events.map(({ reason, message }) => `${reason}: ${message}`), view.message ?? ""];
    return told.find((sentence) => says.test(sentence));
  });

describe.runIf(haveEngine)("with no rule of the owner's", { timeout: 120_000 }, () => {
  let site: Site;
  let image: string;
  let plain: string;
  beforeAll(async () => {
    image = await pushImage("agent/policy-root:1", await smallImage());
    plain = await pushImage("agent/policy-user:1", await smallImage({ user: "1000:1000" }));
    // Set to nothing: as if nobody had set it.
    site = await Site.open({ env: { GPUNODE_POLICY_ALLOW_ROOT: "" } });
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
  });

  test("an image that would run as root is refused with the rule and the remedy, and runs as another user", async () => {
    await site.client.submit({ id: "root", image, command: ["id", "-u"] });
    await refusalOf(site, "root", /^policy_denied: policy\.allow_root does not allow it.*set "user"/);
    await site.client.release("root");
    await site.client.submit({
      id: "as-user",
      image,
      user: "1000",
      command: sh("id -u; grep CapEff /proc/self/status"),
    });
    expect((await site.ends("as-user")).state).toBe("succeeded");
    expect(site.rig.gpunode("logs", "as-user").stdout).toBe("1000\nCapEff:\t0000000000000000\n");
    await site.client.submit({ id: "own-user", image: plain, command: ["id", "-u"] });
    expect((await site.ends("own-user")).state).toBe("succeeded");
  });

  test("a workload that names no limit has one of each kind", async () => {
    await site.client.submit({ id: "bare", image: plain, command: ["sleep", "60"] });
    await site.reaches("bare", "running");
    const [found] = await docker().listContainers({ filters: { label: ["org.gpunode.workload=bare"] } });
    const { HostConfig } = await docker()
      .getContainer(found?.Id ?? "")
      .inspect();
    const host = site.rig.status().host.info;
    const memory = Math.floor(host.memoryMiB * 0.9) * 1024 * 1024;
    expect(HostConfig).toMatchObject({
      Memory: memory,
      MemorySwap: memory,
      NanoCpus: host.cpus * 1e9,
      PidsLimit: 4096,
      OomScoreAdj: 1000,
      ShmSize: Math.floor(memory / 1024 / 1024 / 2) * 1024 * 1024,
    });
    await site.client.release("bare");
    await site.ends("bare");
  });

  test("one that writes more than its diskMiB is ended, with what it wrote and the limit, whatever grace it asked for", async () => {
    // In a cache, where no storage quota would hold it, and which a user other than root can write to.
    const script = "trap '' TERM; dd if=/dev/zero of=/cache/x bs=1M count=40 2>&1; while :; do sleep 1; done";
    await site.client.submit({
      id: "disk",
      image: plain,
      command: sh(script),
      caches: [{ name: "out", path: "/cache" }],
      resources: { diskMiB: 20 },
      stop: { graceSeconds: 3600 },
    });
    const end = endOf(await site.ends("disk"));
    expect(end).toMatchObject({ state: "failed", reason: "disk_limit" });
    expect(end.message).toMatch(/has written 4\d MiB to the disk: the limit is 20 MiB.*resources\.diskMiB/);
  });
});

describe.runIf(haveEngine)("the owner's rules", { timeout: 120_000 }, () => {
  let site: Site;
  let image: string;
  let digest: string;
  beforeAll(async () => {
    const built = await smallImage({ user: "1000:1000" });
    image = await pushImage("agent/policy:1", built);
    digest = `${image.slice(0, image.lastIndexOf(":"))}@${built.manifest.digest}`;
    site = await Site.open({
      more: `[policy]
images = ["${image.split("/")[0]}/agent/*"]
digest_only = true
allow_caches = false
read_only_root = true
max = { run_seconds = 2, memory_mib = 128, pids = 50, ports = 0 }
[preemption]
within_seconds = 1
`,
    });
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
  });

  test.each<[string, object, RegExp]>([
    ["another image", { image: "alpine:3" }, /policy\.images allows .*alpine:3 is not among them/],
    ["a tag", {}, /policy\.digest_only is true/],
    ["a cache", { caches: [{ name: "m", path: "/m" }] }, /policy\.allow_caches is false/],
    ["a port", { ports: [{ container: 80 }] }, /policy\.max\.ports allows 0/],
    ["more run time", { maxRuntimeSeconds: 60 }, /60 seconds.*policy\.max\.run_seconds allows 2/],
    ["more memory", { resources: { memoryMiB: 129 } }, /128 MiB of memory to one workload, 129 asked for/],
  ])("refuse %s, and say which of them does", async (what, changes, says) => {
    const id = what.replaceAll(" ", "-");
    const reference = "image" in changes || what === "a tag" ? image : digest;
    await site.client.submit({ id, image: reference, ...changes });
    // What the coordinator knows from the advertised policy it does not even ask.
    await refusalOf(site, id, says);
    await site.client.release(id).catch(() => undefined);
  });

  test("hold what runs: read-only, capped, and ended at the longest run time with no day of grace", async () => {
    const script =
      "trap '' TERM; touch /x 2>&1; touch /tmp/x && echo tmp; cat /proc/self/oom_score_adj; while :; do sleep 0.1; done";
    await site.client.submit({ id: "held", image: digest, command: sh(script), stop: { graceSeconds: 86_400 } });
    const view = await site.ends("held");
    expect(endOf(view)).toMatchObject({
      state: "failed",
      reason: "max_runtime",
      message: "ran for 2 s, the longest that policy.max.run_seconds allows",
    });
    expect(site.rig.gpunode("logs", "held").stdout).toBe("touch: /x: Read-only file system\ntmp\n1000\n");
  });

  test("are told to the coordinator, and explained to the owner in words", async () => {
    const node = await site.connected();
    expect(node.policy).toMatchObject({
      digestOnly: true,
      allowCaches: false,
      readOnlyRoot: true,
      max: { runSeconds: 2, memoryMiB: 128, pids: 50, ports: 0 },
    });
    const { stdout } = site.rig.gpunode("config", "show");
    expect(stdout).toContain("What a workload may do here");
    expect(stdout).toMatch(/^policy\.max\.run_seconds +2 +ended after 2 s +\/.*config\.toml$/m);
    expect(stdout).toMatch(/^policy\.userns +"any" +.* default$/m);
    const { policy } = JSON.parse(site.rig.gpunode("config", "show", "--json").stdout) as {
      policy: { rule: string; value: unknown; means: string }[];
    };
    expect(policy.find(({ rule }) => rule === "policy.allow_caches")).toMatchObject({
      value: false,
      means: "no volume outlives its workload",
    });
  });
});

describe.runIf(haveEngine)("a rule that this engine cannot keep", { timeout: 120_000 }, () => {
  test.each([
    ["runtime", '"runsc"', /policy\.runtime is "runsc" and the container engine has/, "runtime_missing"],
    ["userns", '"require"', /policy\.userns is "require"/, "userns_missing"],
  ])("policy.%s = %s keeps everything away, and the status says why", async (key, value, says, code) => {
    await using site = await Site.open({ more: `[policy]\n${key} = ${value}\n` });
    const { problems } = site.rig.status();
    expect(problems.find((problem) => problem.code === code)?.message).toMatch(says);
    await site.client.submit({ id: "w", image: "alpine:3" });
    await refusalOf(site, "w", says);
  });
});
