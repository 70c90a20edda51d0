import { describe, expect, it } from "vitest";
import type { CloudTimes } from "../../../src/preemption/cloud.ts";
import {
  AHEAD_MS,
  IMPATIENT,
  json,
  metadataServer,
  type Reply,
  text,
  USELESS,
  until,
  watched,
} from "../../support/metadata-server.ts";

const EVENTS = "GET /metadata/scheduledevents?api-version=2020-07-01";
const NAME = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text";

let incarnation = 0;
const events = (...list: object[]) => {
  incarnation += 1;
  return json({ DocumentIncarnation: incarnation, Events: list });
};
const event = (more: object = {}) => ({
  EventId: "602d9444-d2cd-49c7-8624-8643e7171297",
  EventType: "Reboot",
  ResourceType: "VirtualMachine",
  Resources: ["rig-01"],
  EventStatus: "Scheduled",
  NotBefore: httpDate(15 * 60_000),
  Description: "Host server is undergoing maintenance.",
  EventSource: "Platform",
  DurationInSeconds: -1,
  ...more,
});
const httpDate = (ms: number) => new Date(Date.now() + ms).toUTCString();

async function azure({
  name = "rig-01",
  first = events(),
  ...options
}: {
  name?: string | null;
  first?: Reply;
  times?: CloudTimes;
} = {}) {
  const { url, replies, requests } = await metadataServer([[EVENTS, first]]);
  if (name !== null) replies.set(NAME, text(name));
  const asked = (line: string) => requests.filter((request) => request.line === line);
  const looks = async (count: number) => {
    const before = asked(EVENTS).length;
    await until(() => expect(asked(EVENTS).length).toBeGreaterThanOrEqual(before + count));
  };
  return { replies, asked, looks, ...watched({ provider: "azure", metadataUrl: url, ...options }) };
}

describe("a machine of Azure's", () => {
  it("without events is left alone; its name is asked for once", async () => {
    const { asked, looks, raised, lines } = await azure();
    await looks(5);
    expect(raised).toEqual([]);
    expect(lines).toEqual(["info notices of Azure are heeded"]);
    expect(asked(EVENTS)[0]?.headers.metadata).toBe("true");
    expect(asked(NAME)).toHaveLength(1);
  });

  it.each([
    ["Preempt", "takes this spot machine"],
    ["Terminate", "deletes this machine"],
    ["Reboot", "reboots this machine"],
    ["Redeploy", "moves this machine to another host"],
  ])("%s ends its work by the time named, and at once where it has started", async (EventType, what) => {
    const { replies, looks, raised } = await azure();
    const NotBefore = httpDate(600_000);
    replies.set(EVENTS, events(event({ EventType, NotBefore })));
    await until(() => expect(raised).toHaveLength(1));
    const [claim] = raised[0] ?? [];
    expect(claim).toMatchObject({ work: "stop_in_time", message: `Azure ${what} at ${NotBefore} (${EventType})` });
    expect(Math.abs((claim?.deadlineAt ?? 0) - AHEAD_MS - Date.parse(NotBefore))).toBeLessThan(100);
    await looks(4);
    expect(raised).toHaveLength(1);
    replies.set(EVENTS, events(event({ EventType, NotBefore: "", EventStatus: "Started" })));
    await until(() => expect(raised).toHaveLength(2));
    expect(raised[1]).toEqual([{ work: "stop", message: `Azure ${what} now (${EventType})` }]);
    replies.set(EVENTS, events());
    await until(() => expect(raised.slice(2)).toEqual([[]]));
  });

  it("that is frozen for some seconds warns, and goes on", async () => {
    const { replies, raised } = await azure();
    replies.set(EVENTS, events(event({ EventType: "Freeze" })));
    await until(() => expect(raised).toMatchObject([[{ work: "warn" }]]));
    expect(raised[0]?.[0]).not.toHaveProperty("deadlineAt");
    replies.set(EVENTS, events(event({ EventType: "Freeze", NotBefore: "", EventStatus: "Started" })));
    await until(() => expect(raised.slice(1)).toMatchObject([[{ work: "warn" }]]));
    replies.set(EVENTS, events());
    await until(() => expect(raised.slice(2)).toEqual([[]]));
  });

  it("has nothing to do with the events of its neighbours, whatever the case of its name", async () => {
    const { replies, looks, raised } = await azure({ name: "Rig-01" });
    replies.set(EVENTS, events(event({ Resources: ["rig-02", "rig-010"] })));
    await looks(4);
    expect(raised).toEqual([]);
    replies.set(
      EVENTS,
      events(event({ EventId: "other", Resources: ["rig-02"] }), event({ Resources: ["rig-02", "RIG-01"] })),
    );
    await until(() => expect(raised).toHaveLength(1));
    expect(raised[0]).toHaveLength(1);
  });

  it("whose name cannot be known takes every event for its own; so it does one without names", async () => {
    const unknown = await azure({ name: null });
    unknown.replies.set(EVENTS, events(event({ Resources: ["rig-02"] })));
    await until(() => expect(unknown.raised).toHaveLength(1));
    const known = await azure();
    known.replies.set(EVENTS, events(event({ Resources: [] })));
    await until(() => expect(known.raised).toHaveLength(1));
  });

  it("learns its name later where it could not at first", async () => {
    const { replies, looks, raised } = await azure({ name: null });
    await looks(2);
    replies.set(NAME, text("rig-01"));
    await looks(2);
    replies.set(EVENTS, events(event({ Resources: ["rig-02"] })));
    await looks(3);
    expect(raised).toEqual([]);
  });

  it("to be moved in days goes on working until an hour before; the log knows at once", async () => {
    const { replies, looks, raised, warnings } = await azure();
    const NotBefore = httpDate(3 * 86_400_000);
    replies.set(EVENTS, events(event({ EventType: "Redeploy", NotBefore })));
    await looks(4);
    expect(raised).toEqual([]);
    expect(warnings()).toEqual([`warn Azure moves this machine to another host at ${NotBefore} (Redeploy)`]);
    replies.set(EVENTS, events(event({ EventType: "Redeploy", NotBefore: httpDate(59 * 60_000) })));
    await until(() => expect(raised).toMatchObject([[{ work: "stop_in_time" }]]));
  });

  it("with two events tells both, and lifts each for itself", async () => {
    const { replies, raised } = await azure();
    const freeze = event({ EventId: "freeze", EventType: "Freeze" });
    replies.set(EVENTS, events(freeze, event()));
    await until(() =>
      expect(raised.map((claims) => claims.map(({ work }) => work))).toEqual([["warn", "stop_in_time"]]),
    );
    replies.set(EVENTS, events(freeze));
    await until(() => expect(raised.slice(1)).toMatchObject([[{ work: "warn" }]]));
  });

  it("leaves alone what it does not know, and what should have begun long ago", async () => {
    const { replies, looks, raised } = await azure();
    replies.set(
      EVENTS,
      events(event({ EventType: "Teleport" }), event({ EventId: "old", NotBefore: httpDate(-86_400_000) })),
    );
    await looks(4);
    expect(raised).toEqual([]);
  });
});

describe("a metadata service of Azure's", () => {
  const LIES = {
    ...USELESS,
    "without an incarnation": json({ Events: [event()] }),
    "whose time is no time": events(event({ NotBefore: "soon" })),
    "whose day is no day": events(event({ NotBefore: "Mon, 99 Foo 2026 88:77:66 GMT" })),
    "whose events are no list": json({ DocumentIncarnation: 1, Events: "Reboot" }),
    "whose event has no id": events(event({ EventId: undefined })),
  };

  it.each(Object.entries(LIES))("%s raises nothing and lifts nothing, and is told once", async (_, reply) => {
    const { replies, looks, raised, warnings } = await azure({ first: reply, times: IMPATIENT });
    await looks(2);
    expect(raised).toEqual([]);
    expect(warnings()).toHaveLength(1);
    replies.set(EVENTS, events(event()));
    await until(() => expect(raised).toHaveLength(1));
    replies.set(EVENTS, reply);
    await looks(3);
    expect(raised).toHaveLength(1);
  });

  it("that takes its time with the first answer, as Azure's does, is waited for; later ones are not", async () => {
    const { url, replies, requests } = await metadataServer();
    replies.set(EVENTS, (request, response) => void setTimeout(() => events()(request, response), 1500));
    const { raised, warnings } = watched({
      provider: "azure",
      metadataUrl: url,
      times: { intervalMs: 10, timeoutMs: 500, firstTimeoutMs: 20_000, longestPauseMs: 40 },
    });
    await until(() => expect(requests.filter(({ line }) => line === EVENTS)).toHaveLength(2));
    expect(warnings()).toEqual([]);
    await until(() => expect(warnings()).toHaveLength(1));
    expect(warnings()[0]).toContain("was not answered within 500 ms");
    expect(raised).toEqual([]);
  });
});
