import { describe, expect, it } from "vitest";
import type { CloudTimes } from "../../../src/preemption/cloud.ts";
import { AHEAD_MS, IMPATIENT, metadataServer, text, USELESS, until, watched } from "../../support/metadata-server.ts";

const PREEMPTED = "GET /computeMetadata/v1/instance/preempted";
const MAINTENANCE = "GET /computeMetadata/v1/instance/maintenance-event";

const QUICK: CloudTimes = { intervalMs: 10, longestPauseMs: 40 };

const google = (body: string) => text(body, 200, { "metadata-flavor": "Google" });

async function gce({ hasGpus = true, preempted = google("FALSE"), times = QUICK } = {}) {
  const { url, replies, requests } = await metadataServer([
    [PREEMPTED, preempted],
    [MAINTENANCE, google("NONE")],
  ]);
  const asked = (line: string) => requests.filter((request) => request.line === line);
  const looks = async (count: number) => {
    const before = asked(PREEMPTED).length;
    await until(() => expect(asked(PREEMPTED).length).toBeGreaterThanOrEqual(before + count));
  };
  return { replies, asked, looks, ...watched({ provider: "gcp", metadataUrl: url, hasGpus: () => hasGpus, times }) };
}

const inMs = (ms: number, deadlineAt: number | undefined) =>
  Math.abs((deadlineAt ?? 0) - AHEAD_MS - Date.now() - ms) < 5_000;

describe("a machine of Google's", () => {
  it("that nobody wants is left alone, also when it is moved as it runs or something new is said", async () => {
    const { replies, asked, looks, raised, lines } = await gce();
    await looks(2);
    replies.set(MAINTENANCE, google("MIGRATE_ON_HOST_MAINTENANCE"));
    await looks(3);
    replies.set(MAINTENANCE, google("SOMETHING_NEW"));
    await looks(3);
    expect(raised).toEqual([]);
    expect(lines).toEqual(["info notices of Google Cloud are heeded"]);
    expect(asked(PREEMPTED)[0]?.headers["metadata-flavor"]).toBe("Google");
  });

  it("that is preempted ends its work within 30 seconds, whatever else the service does meanwhile", async () => {
    const { replies, looks, raised } = await gce();
    replies.set(MAINTENANCE, text("", 503));
    replies.set(PREEMPTED, google("TRUE\n"));
    await until(() => expect(raised).toHaveLength(1));
    const [claim] = raised[0] ?? [];
    expect(claim).toMatchObject({ work: "stop", message: "Google takes this spot machine within 30 seconds" });
    expect(inMs(30_000, claim?.deadlineAt)).toBe(true);
    await looks(5);
    expect(raised).toHaveLength(1);
  });

  it.each([
    [true, 60 * 60_000],
    [false, 60_000],
  ])("with GPUs: %s; maintenance of its host ends its work within %d ms, and is withdrawn", async (hasGpus, leadMs) => {
    const { replies, looks, raised } = await gce({ hasGpus });
    replies.set(MAINTENANCE, google("TERMINATE_ON_HOST_MAINTENANCE"));
    await until(() => expect(raised).toHaveLength(1));
    const [claim] = raised[0] ?? [];
    expect(claim?.work).toBe("stop_in_time");
    expect(claim?.message).toMatch(/^Google stops this machine for maintenance of its host at about \d\d:\d\d UTC$/);
    expect(inMs(leadMs, claim?.deadlineAt)).toBe(true);
    await looks(5);
    expect(raised).toHaveLength(1);
    replies.set(MAINTENANCE, google("NONE"));
    await until(() => expect(raised.slice(1)).toEqual([[]]));
  });
});

describe("a metadata service of Google's", () => {
  const LIES = {
    ...USELESS,
    "that is not Google's": text("TRUE"),
    "that says neither yes nor no": google("MAYBE"),
    "that shouts": google("TRUE TRUE"),
  };

  it.each(Object.entries(LIES))("%s raises nothing and lifts nothing, and is told once", async (_, reply) => {
    const { replies, looks, raised, warnings } = await gce({ preempted: reply, times: IMPATIENT });
    await looks(2);
    expect(raised).toEqual([]);
    expect(warnings()).toHaveLength(1);
    replies.set(PREEMPTED, google("FALSE"));
    replies.set(MAINTENANCE, google("TERMINATE_ON_HOST_MAINTENANCE"));
    await until(() => expect(raised).toHaveLength(1));
    replies.set(PREEMPTED, reply);
    await looks(3);
    expect(raised).toHaveLength(1);
  });

  it.each(Object.entries(USELESS))("%s when asked for maintenance lifts nothing", async (_, reply) => {
    const { replies, looks, raised } = await gce({ times: IMPATIENT });
    replies.set(MAINTENANCE, google("TERMINATE_ON_HOST_MAINTENANCE"));
    await until(() => expect(raised).toHaveLength(1));
    replies.set(MAINTENANCE, reply);
    await looks(3);
    expect(raised).toHaveLength(1);
  });
});
