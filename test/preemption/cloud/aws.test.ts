import { describe, expect, it } from "vitest";
import type { CloudTimes } from "../../../src/preemption/cloud.ts";
import {
  AHEAD_MS,
  IMPATIENT,
  json,
  metadataServer,
  missing,
  type Reply,
  text,
  USELESS,
  until,
  watched,
} from "../../support/metadata-server.ts";

const TOKEN = "PUT /latest/api/token";
const INTERRUPTION = "GET /latest/meta-data/spot/instance-action";
const REBALANCE = "GET /latest/meta-data/events/recommendations/rebalance";

/** EC2's times have no fractions. */
const inMs = (ms: number) => `${new Date(Date.now() + ms).toISOString().slice(0, 19)}Z`;

async function ec2({ first = [], ...options }: { first?: [string, Reply][]; times?: CloudTimes } = {}) {
  const server = await metadataServer(first);
  let given = 0;
  const token: Reply = (request, response) => {
    given += 1;
    const isAsked = request.headers["x-aws-ec2-metadata-token-ttl-seconds"] === "21600";
    response.writeHead(isAsked ? 200 : 400).end(isAsked ? `token-${given}==` : "");
  };
  if (!server.replies.has(TOKEN)) server.replies.set(TOKEN, token);
  const { url, replies, requests } = server;
  const asked = (line: string) => requests.filter((request) => request.line === line);
  /** Some more looks have been taken. */
  const looks = async (count: number) => {
    const before = asked(INTERRUPTION).length;
    await until(() => expect(asked(INTERRUPTION).length).toBeGreaterThanOrEqual(before + count));
  };
  return { replies, asked, looks, ...watched({ provider: "aws", metadataUrl: url, ...options }) };
}

describe("a spot instance of AWS", () => {
  it("that nobody wants is left alone, with one token for all looks", async () => {
    const { asked, looks, raised, lines } = await ec2();
    await looks(5);
    expect(raised).toEqual([]);
    expect(lines).toEqual(["info notices of AWS are heeded"]);
    expect(asked(TOKEN)).toHaveLength(1);
    expect(asked(INTERRUPTION)[0]?.headers["x-aws-ec2-metadata-token"]).toBe("token-1==");
    expect(asked(REBALANCE)[0]?.headers["x-aws-ec2-metadata-token"]).toBe("token-1==");
  });

  it.each(["stop", "terminate"])("that is to %s ends its work by the time AWS names, told once", async (action) => {
    const { replies, looks, raised, warnings } = await ec2();
    const time = inMs(120_000);
    replies.set(INTERRUPTION, json({ action, time }));
    await until(() => expect(raised).toHaveLength(1));
    const [claim] = raised[0] ?? [];
    expect(claim).toEqual({
      work: "stop_in_time",
      deadlineAt: expect.any(Number),
      message: `AWS ${action}s this spot instance at ${time.slice(11, 19)} UTC`,
    });
    expect(Math.abs((claim?.deadlineAt ?? 0) - Date.parse(time) - AHEAD_MS)).toBeLessThan(100);
    await looks(5);
    expect(raised).toHaveLength(1);
    expect(warnings()).toEqual([`warn ${claim?.message}`]);
  });

  it("that hibernates ends its work at once: that begins without two minutes", async () => {
    const { replies, raised } = await ec2();
    replies.set(INTERRUPTION, json({ action: "hibernate", time: inMs(0) }));
    await until(() => expect(raised).toEqual([[{ work: "stop", message: "AWS hibernates this spot instance now" }]]));
  });

  it("that is taken back from the list is lent again", async () => {
    const { replies, raised } = await ec2();
    replies.set(INTERRUPTION, json({ action: "terminate", time: inMs(120_000) }));
    await until(() => expect(raised).toHaveLength(1));
    replies.set(INTERRUPTION, missing);
    await until(() => expect(raised.slice(1)).toEqual([[]]));
  });

  it("at risk warns, and the interruption takes the place of the warning", async () => {
    const { replies, raised } = await ec2();
    replies.set(REBALANCE, json({ noticeTime: inMs(-60_000) }));
    const message = "AWS recommends to leave this spot instance: it may be interrupted soon";
    await until(() => expect(raised).toEqual([[{ work: "warn", message }]]));
    replies.set(INTERRUPTION, json({ action: "terminate", time: inMs(110_000) }));
    await until(() => expect(raised.slice(1)).toMatchObject([[{ work: "stop_in_time" }]]));
  });

  it("at risk for more than an hour goes on: most are never interrupted", async () => {
    const { replies, looks, raised, warnings } = await ec2();
    replies.set(REBALANCE, json({ noticeTime: inMs(-61 * 60_000) }));
    await looks(4);
    expect(raised).toEqual([]);
    expect(warnings()).toEqual([]);
  });

  it("that is interrupted a moment ago by a clock that is a little wrong ends its work with its own grace", async () => {
    const { replies, raised } = await ec2();
    replies.set(INTERRUPTION, json({ action: "terminate", time: inMs(-30_000) }));
    await until(() => expect(raised).toMatchObject([[{ work: "stop" }]]));
    expect(raised[0]?.[0]).not.toHaveProperty("deadlineAt");
  });
});

describe("its token", () => {
  it("is asked for again when it is refused, and the look goes on", async () => {
    const { replies, asked, raised } = await ec2();
    replies.set(INTERRUPTION, (request, response) => {
      const isNew = request.headers["x-aws-ec2-metadata-token"] === "token-2==";
      if (isNew) json({ action: "stop", time: inMs(120_000) })(request, response);
      else response.writeHead(401).end();
    });
    await until(() => expect(raised).toMatchObject([[{ work: "stop_in_time" }]]));
    expect(asked(TOKEN)).toHaveLength(2);
  });

  it("that never does is an outage, and no storm of requests", async () => {
    const { asked, looks, raised, warnings } = await ec2({ first: [[INTERRUPTION, text("", 401)]] });
    await looks(6);
    expect(raised).toEqual([]);
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toContain("/latest/meta-data/spot/instance-action was answered with HTTP 401");
    expect(asked(TOKEN).length).toBeLessThanOrEqual(asked(INTERRUPTION).length + 1);
  });

  it.each(["two\r\nlines: 1", "x".repeat(5000), "", "schlüssel"])("%j is none", async (answer) => {
    const { asked, raised, warnings } = await ec2({ first: [[TOKEN, text(answer)]] });
    await until(() => expect(asked(TOKEN).length).toBeGreaterThan(3));
    expect(asked(INTERRUPTION)).toEqual([]);
    expect(warnings()).toHaveLength(1);
    expect(raised).toEqual([]);
  });
});

describe("a metadata service of AWS", () => {
  const LIES = {
    ...USELESS,
    "that names a time a century ahead": json({ action: "terminate", time: "2126-01-01T00:00:00Z" }),
    "that names a time long past": json({ action: "terminate", time: "2017-09-18T08:22:00Z" }),
    "that names no time": json({ action: "terminate" }),
    "that names a day that is none": json({ action: "terminate", time: "2026-02-31T25:00:00Z" }),
    "that names an action nobody knows": json({ action: "explode", time: inMs(60_000) }),
  };

  it.each(Object.entries(LIES))("%s raises nothing, is told once, and is asked on", async (_, reply) => {
    const { replies, looks, raised, lines, warnings } = await ec2({ first: [[INTERRUPTION, reply]], times: IMPATIENT });
    await looks(2);
    expect(raised).toEqual([]);
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toMatch(/^warn the metadata service of AWS cannot be used: .*cloud_notice = false$/);
    replies.set(INTERRUPTION, missing);
    await until(() => expect(lines.at(-1)).toBe("info the metadata service of AWS answers again"));
    expect(raised).toEqual([]);
  });

  it.each(Object.entries(LIES))("%s after a notice does not lift it", async (_, reply) => {
    const { replies, looks, raised } = await ec2({ times: IMPATIENT });
    replies.set(INTERRUPTION, json({ action: "terminate", time: inMs(120_000) }));
    await until(() => expect(raised).toHaveLength(1));
    replies.set(INTERRUPTION, reply);
    await looks(3);
    expect(raised).toHaveLength(1);
    replies.set(INTERRUPTION, missing);
    await until(() => expect(raised.slice(1)).toEqual([[]]));
  });
});
