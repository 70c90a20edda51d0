import { createSocket, type Socket } from "node:dgram";
import { createServer, type Server } from "node:net";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import type { Policy } from "../../src/workload/admit.ts";
import { pickPorts } from "../../src/workload/port-range.ts";
import { StoredWorkload, type WorkloadRecord } from "../../src/workload/record.ts";

const open: (Server | Socket)[] = [];
let from = 0;

/** A port the kernel says is free, with a few after it that are most likely free as well. */
beforeAll(async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  from = Math.min(typeof address === "object" && address !== null ? address.port : 40_000, 65_500);
});

afterEach(async () => {
  await Promise.all(open.splice(0).map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
});

async function listenTcp(port: number, host = "127.0.0.1"): Promise<void> {
  const server = createServer();
  open.push(server);
  await new Promise<void>((resolve, reject) =>
    server.once("error", reject).listen({ port, host, exclusive: true }, resolve),
  );
}

async function bindUdp(port: number): Promise<void> {
  const socket = createSocket("udp4");
  open.push(socket);
  await new Promise<void>((resolve) => socket.bind({ port, address: "127.0.0.1", exclusive: true }, resolve));
}

function policyOf(count: number, hostIp = "127.0.0.1"): Policy {
  return {
    images: ["*"],
    hostPorts: { from, to: from + count - 1 },
    hostIp,
    reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
    allowRoot: true,
    pullNoProgressMs: 1000,
    preemptWithinMs: 120_000,
    priorityPreemption: true,
  };
}

function wants(...ports: { container: number; protocol?: "udp" }[]): WorkloadRecord {
  const spec = StoredWorkload.parse(Workload.parse({ id: "w", generation: 1, image: "a", ports }));
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 1 };
  return { id: "w", generation: 1, spec, state: "starting", ...base };
}

const hosts = async (record: WorkloadRecord, policy: Policy, reserved: number[] = []) =>
  (await pickPorts(record, policy, new Set(reserved))).map(({ host }) => host - from);

describe("host ports", () => {
  it("are the lowest free of the range, in the order asked for", async () => {
    expect(
      await pickPorts(wants({ container: 80 }, { container: 53, protocol: "udp" }), policyOf(4), new Set()),
    ).toEqual([
      { container: 80, host: from, protocol: "tcp" },
      { container: 53, host: from + 1, protocol: "udp" },
    ]);
  });

  it("are not those of other workloads", async () => {
    expect(await hosts(wants({ container: 80 }, { container: 81 }), policyOf(4), [from, from + 2])).toEqual([1, 3]);
  });

  it("are not those somebody on this host listens on", async () => {
    await listenTcp(from);
    expect(await hosts(wants({ container: 80 }), policyOf(4))).toEqual([1]);
  });

  it("are not those somebody listens on at one address, when published on all", async () => {
    await listenTcp(from);
    expect(await hosts(wants({ container: 80 }), policyOf(4, "0.0.0.0"))).toEqual([1]);
  });

  it("know tcp from udp", async () => {
    await bindUdp(from);
    expect(await hosts(wants({ container: 80 }), policyOf(4))).toEqual([0]);
    expect(await hosts(wants({ container: 80, protocol: "udp" }), policyOf(4))).toEqual([1]);
  });

  it("run out with a word on the range", async () => {
    await listenTcp(from + 1);
    await expect(pickPorts(wants({ container: 80 }, { container: 81 }), policyOf(2), new Set())).rejects.toMatchObject({
      code: "policy_denied",
      message: expect.stringContaining(`${from}-${from + 1}`) as string,
    });
  });

  it("stay free for the container: nothing of ours listens after the look", async () => {
    const picked = await pickPorts(
      wants({ container: 80 }, { container: 53, protocol: "udp" }),
      policyOf(4),
      new Set(),
    );
    await listenTcp(picked[0]?.host ?? 0);
    await bindUdp(picked[1]?.host ?? 0);
  });

  it("are said to be impossible, not used up, where the host has no such address", async () => {
    await expect(pickPorts(wants({ container: 80 }), policyOf(2, "192.0.2.1"), new Set())).rejects.toThrow(
      /192\.0\.2\.1/,
    );
  });
});
