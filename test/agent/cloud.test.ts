import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { json, metadataServer, missing, type Reply, text, USELESS } from "../support/metadata-server.ts";
import { course, patiently, Site } from "./rig.ts";
import { sh, stays, story, tells } from "./story.ts";

const TOKEN = "PUT /latest/api/token";
const INTERRUPTION = "GET /latest/meta-data/spot/instance-action";
const REBALANCE = "GET /latest/meta-data/events/recommendations/rebalance";
const google = (body: string) => text(body, 200, { "Metadata-Flavor": "Google" });
const MAINTENANCE = "GET /computeMetadata/v1/instance/maintenance-event";
const PREEMPTED = "GET /computeMetadata/v1/instance/preempted";

const rented = (provider: string, url: string) => ({
  more: `cloud = { provider = "${provider}", metadata_url = "${url}" }`,
});
/** As clouds write it: to the second. */
const instant = (inMs: number) => new Date(Date.now() + inMs).toISOString().replace(/\.\d+Z$/, "Z");

describe.runIf(haveEngine)("a machine rented from a cloud", { timeout: 120_000 }, () => {
  test("AWS: a recommendation to leave is a warning, and is lifted; an interruption ends the work in time", async () => {
    const image = await pushImage("agent/cloud:1", await smallImage());
    const aws = await metadataServer([[TOKEN, text("t0ken")]]);
    await using site = await Site.open(rented("aws", aws.url));
    const checkpoint = { exec: sh("echo saved >/proc/1/fd/1"), timeoutSeconds: 2 };
    const stop = { graceSeconds: 2, checkpoint };
    await site.client.submit({ id: "w", image, command: stays, gpus: { count: 1 }, stop });
    await site.reaches("w", "running");

    aws.replies.set(REBALANCE, json({ noticeTime: instant(0) }));
    await tells(site, "draining cloud_notice", "notice cloud_notice");
    const warned = site.rig.status();
    expect(warned).toMatchObject({
      node: { state: "draining" },
      workloads: [{ state: "running", notice: { cause: "cloud_notice" } }],
    });
    expect(warned.workloads[0]?.notice).not.toHaveProperty("deadline");
    expect(site.rig.gpunode("status").stdout).toContain("warned: AWS recommends to leave this spot instance");
    aws.replies.set(REBALANCE, missing);
    const lifted = ["draining cloud_notice", "notice cloud_notice", "available cloud_notice", "withdrawn cloud_notice"];
    await tells(site, ...lifted);
    expect((await site.client.workload("w")).state).toBe("running");

    const time = instant(15_000);
    aws.replies.set(INTERRUPTION, json({ action: "terminate", time }));
    const view = await site.ends("w");
    const { last } = course(view);
    expect(last).toMatchObject({ state: "preempted", reason: "cloud_notice", exitCode: 0 });
    expect(last.message).toBe(`AWS terminates this spot instance at ${time.slice(11, 19)} UTC`);
    expect(Date.parse(String(last.at))).toBeLessThan(Date.parse(time));
    const deadlines = view.events.flatMap(({ phase, deadline }) => (phase === "notice" ? [deadline] : []));
    expect(deadlines[0]).toBeUndefined();
    expect(Math.abs(Date.parse(String(deadlines[1])) - Date.parse(time))).toBeLessThan(1000);
    expect(site.rig.gpunode("logs", "w").stdout).toBe("saved\n");
    const taken = [
      "draining cloud_notice",
      "notice cloud_notice",
      "checkpointed cloud_notice",
      "finished cloud_notice",
    ];
    await tells(site, ...lifted, ...taken);
  });

  test("Google: a notice is withdrawn, the job reads so and goes on; of two sources the sooner one speaks", async () => {
    const image = await pushImage("agent/cloud:1", await smallImage());
    const gcp = await metadataServer([
      [PREEMPTED, google("FALSE")],
      [MAINTENANCE, google("NONE")],
    ]);
    await using site = await Site.open(rented("gcp", gcp.url));
    const file = '"$GPUNODE_PREEMPTION_FILE"';
    const awaits = (phase: string) => `until grep -qs ${phase} ${file}; do sleep 0.1; done; echo ${phase}`;
    await site.client.submit({
      id: "reader",
      image,
      command: sh(
        `${awaits("notice")}; ${awaits("withdrawn")}; trap 'cat ${file}; exit 0' TERM; while :; do sleep 0.1; done`,
      ),
      gpus: { count: 1 },
      stop: { graceSeconds: 5 },
    });
    await site.reaches("reader", "running");
    const wrote = (output: string) =>
      patiently(() => (site.rig.gpunode("logs", "reader").stdout === output ? true : undefined));

    gcp.replies.set(MAINTENANCE, google("TERMINATE_ON_HOST_MAINTENANCE"));
    await wrote("notice\n");
    expect(site.rig.gpunode("status").stdout).toMatch(/gone in (59 min|1 h): Google stops this machine/);
    gcp.replies.set(MAINTENANCE, google("NONE"));
    await wrote("notice\nwithdrawn\n");
    const before = ["draining cloud_notice", "notice cloud_notice", "available cloud_notice", "withdrawn cloud_notice"];
    await tells(site, ...before);
    expect((await site.client.workload("reader")).state).toBe("running");

    gcp.replies.set(MAINTENANCE, google("TERMINATE_ON_HOST_MAINTENANCE"));
    await tells(site, ...before, "draining cloud_notice", "notice cloud_notice");
    expect(site.rig.gpunode("reclaim").stdout).toMatch(/reader is gone \(preempted\)\nIt is all yours/);
    expect(course(await site.ends("reader")).last).toMatchObject({ state: "preempted", reason: "owner" });
    const [, , line = ""] = site.rig.gpunode("logs", "reader").stdout.split("\n");
    expect(JSON.parse(line)).toMatchObject({ phase: "notice", cause: "owner", message: "taken back by its owner" });
    await tells(site, ...before, "draining cloud_notice", "notice cloud_notice", "notice owner", "finished owner");
  });

  const lies: Record<string, Reply> = {
    ...Object.fromEntries(
      ["that hangs", "that answers with a page", "that never stops"].map((name) => [name, USELESS[name]]),
    ),
    "that tells of a time that cannot be": (request, response) =>
      request.method === "PUT"
        ? text("t0ken")(request, response)
        : json({ action: "terminate", time: "2001-01-01T00:00:00Z" })(request, response),
  };
  test.each([...Object.entries(lies), ["that is not there", undefined] as const])(
    "with a metadata service %s: it is said once, and the node works",
    async (_, reply) => {
      const image = await pushImage("agent/cloud:1", await smallImage());
      const aws = await metadataServer();
      const url = reply === undefined ? "http://127.0.0.1:9" : aws.url;
      if (reply !== undefined) for (const line of [TOKEN, INTERRUPTION]) aws.replies.set(line, reply);
      await using site = await Site.open(rented("aws", url));
      await site.client.submit({ id: "w", image, command: sh("sleep 1"), gpus: { count: 1 } });
      expect((await site.ends("w")).state).toBe("succeeded");
      const warnings = () => site.rig.log.match(/the metadata service of AWS cannot be used/g) ?? [];
      await patiently(() => (warnings().length > 0 ? true : undefined));
      await sleep(500);
      expect(warnings()).toHaveLength(1);
      expect(await story(site)).toEqual([]);
      expect(site.rig.status()).toMatchObject({ node: { state: "available" }, holds: [] });
    },
  );
});
