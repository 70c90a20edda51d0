import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { HealthProbe } from "../../src/protocol/workload.ts";
import type { Engine } from "../../src/workload/needs.ts";
import { watchHealth } from "../../src/workload/probe.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    expect(server.listening).toBe(false);
  }
});

/** A server that answers with `status()`, or not at all where that is undefined; its port. */
async function serve(status: () => number | undefined): Promise<number> {
  const server = createServer((_, response) => {
    const code = status();
    if (code !== undefined) response.writeHead(code, code === 302 ? { location: "http://192.0.2.1/" } : {}).end("body");
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Verdicts of a watch over `ms` milliseconds. The schema's shortest interval is a second; here it is set below that. */
async function verdicts(
  probe: object,
  options: { ms: number; host?: number; exec?: Engine["exec"]; report?: (healthy: boolean) => void },
): Promise<boolean[]> {
  const parsed = { ...HealthProbe.parse({ ...probe }), intervalSeconds: 0.02 };
  const end = new AbortController();
  const told: boolean[] = [];
  const watch = watchHealth(parsed, {
    engine: { exec: options.exec } as Engine,
    containerId: "c",
    ports: options.host === undefined ? [] : [{ container: 80, host: options.host, protocol: "tcp" }],
    hostIp: "127.0.0.1",
    signal: end.signal,
    report: (healthy) => {
      told.push(healthy);
      options.report?.(healthy);
    },
  });
  await new Promise((resolve) => setTimeout(resolve, options.ms));
  const before = performance.now();
  end.abort();
  await watch;
  expect(performance.now() - before).toBeLessThan(200);
  return told;
}

const http = (more: object = {}) => ({ http: { port: 80, path: "/health" }, ...more });

describe("a health probe over HTTP", () => {
  it.each([
    [200, true],
    [204, true],
    [302, true],
    [404, false],
    [503, false],
  ])("takes %i for healthy = %s, and says it once", async (status, healthy) => {
    const host = await serve(() => status);
    expect(await verdicts(http({ retries: 1 }), { ms: 150, host })).toEqual([healthy]);
  });

  it("is told only when it changes, and bad only after so many in a row", async () => {
    let asked = 0;
    // Two bad answers are forgiven by a good one; from the sixth on they are all bad.
    const host = await serve(() => ([1, 4].includes(asked++) ? 500 : asked > 6 ? 500 : 200));
    expect(await verdicts(http({ retries: 2 }), { ms: 400, host })).toEqual([true, false]);
  });

  it("does not count bad answers while it is starting", async () => {
    const host = await serve(() => 500);
    expect(await verdicts(http({ retries: 1, startPeriodSeconds: 60 }), { ms: 150, host })).toEqual([]);
  });

  it("counts no answer in time as a bad one", async () => {
    const host = await serve(() => undefined);
    expect(await verdicts(http({ retries: 1, timeoutSeconds: 1 }), { ms: 1200, host })).toEqual([false]);
  });

  it("is bad where nobody listens, and where the port is not published", async () => {
    expect(await verdicts(http({ retries: 1 }), { ms: 100, host: 1 })).toEqual([false]);
    expect(await verdicts(http({ retries: 1 }), { ms: 100 })).toEqual([false]);
  });

  it("is told again where it could not be recorded", async () => {
    const host = await serve(() => 200);
    let refusals = 2;
    const told = await verdicts(http(), {
      ms: 300,
      host,
      report: () => {
        if (refusals-- > 0) throw new Error("the disk refuses");
      },
    });
    expect(told).toEqual([true, true, true]);
  });
});

describe("a health probe by a command", () => {
  it.each([
    ["exit code 0", () => Promise.resolve({ exitCode: 0, output: "" }), true],
    ["exit code 1", () => Promise.resolve({ exitCode: 1, output: "" }), false],
    ["a command that ran out of time", () => Promise.resolve({ output: "" }), false],
    ["an engine that is away", () => Promise.reject(new Error("away")), false],
  ] as const)("%s", async (_, exec, healthy) => {
    expect(await verdicts({ exec: ["true"], retries: 1 }, { ms: 100, exec })).toEqual([healthy]);
  });
});

describe("the timing of a probe", () => {
  it.each([{ intervalSeconds: 1e7 }, { timeoutSeconds: 1e7 }])("never passes what a timer can hold: %j", (timing) => {
    const { success, data } = HealthProbe.safeParse({ exec: ["x"], ...timing });
    if (!success) return;
    for (const seconds of [data.intervalSeconds, data.timeoutSeconds]) expect(seconds * 1000).toBeLessThan(2 ** 31);
  });
});
