import { afterEach, describe, expect, it, vi } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import { watchDisk } from "../../src/workload/disk-watch.ts";
import type { DiskAccount } from "../../src/workload/needs.ts";
import { type StopOrder, StoredWorkload, type WorkloadRecord } from "../../src/workload/record.ts";

const MIB = 1024 * 1024;
const caches = [{ name: "models", path: "/models" }];

function recordOf(id: string, changes: Partial<WorkloadRecord> = {}): WorkloadRecord {
  const spec = StoredWorkload.parse(
    Workload.parse({ id, generation: 1, image: "a", caches, stop: { graceSeconds: 3600 } }),
  );
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 1 };
  return { id, generation: 1, spec, state: "running", containerId: `c-${id}`, ...base, ...changes };
}

/** Sizes in MiB: of the layer, and of volumes by name. */
interface Disk {
  running: { id: string; layer?: number; mounted?: Record<string, string> }[];
  volumes?: Record<string, number>;
}

const account = ({ running, volumes = {} }: Disk): DiskAccount => ({
  containers: running.map(({ id, layer = 0, mounted = {} }) => ({
    id: `c-${id}`,
    layerBytes: layer * MIB,
    volumes: Object.entries(mounted).map(([name, path]) => ({ name, path })),
  })),
  volumeBytes: new Map(Object.entries(volumes).map(([name, mib]) => [name, mib * MIB])),
});

const watches: AsyncDisposable[] = [];
afterEach(async () => {
  for (const watch of watches.splice(0)) await watch[Symbol.asyncDispose]();
});

/** A watch that sees these accounts, one after the other; the last for ever. Returns the orders it has given. */
async function watched(disks: Disk[], records: WorkloadRecord[], diskMiB = 100): Promise<Map<string, StopOrder>> {
  const orders = new Map<string, StopOrder>();
  let looks = 0;
  watches.push(
    watchDisk({
      engine: {
        diskAccount: () => {
          const disk = disks[Math.min(looks, disks.length - 1)];
          looks += 1;
          return disk === undefined ? Promise.reject(new Error("no disk")) : Promise.resolve(account(disk));
        },
      },
      runners: () => records.map((record) => ({ record, order: (stop) => void orders.set(record.id, stop) })),
      limits: () => ({ diskMiB }),
      log: { warn: () => undefined },
      everyMs: 1,
    }),
  );
  await vi.waitFor(() => expect(looks).toBeGreaterThan(disks.length));
  return orders;
}

describe("a watch over what workloads write", () => {
  it("ends who wrote more than the limit, in layer and volumes together, with a short grace", async () => {
    const inbox = { running: [{ id: "a", layer: 60, mounted: { v: "/data" } }], volumes: { v: 41 } };
    const order = (await watched([inbox], [recordOf("a")])).get("a");
    expect(order).toMatchObject({ outcome: "failed", reason: "disk_limit", graceSeconds: 10 });
    expect(order?.message).toMatch(/has written 101 MiB.*limit is 100 MiB/);
  });

  it("leaves alone who stays at it, and who is being ended or is unknown to the engine", async () => {
    const stop: StopOrder = { outcome: "stopped", reason: "released", graceSeconds: 1 };
    const records = [recordOf("a"), recordOf("ending", { stop }), recordOf("elsewhere")];
    const disk = {
      running: [
        { id: "a", layer: 100 },
        { id: "ending", layer: 999 },
      ],
    };
    expect(await watched([disk], records)).toEqual(new Map());
  });

  it("counts of a cache only what it grew by: that was there before is the owner's", async () => {
    const before = { running: [], volumes: { m: 5000 } };
    const at = (mib: number) => ({ running: [{ id: "a", mounted: { m: "/models" } }], volumes: { m: mib } });
    expect(await watched([before, at(5099)], [recordOf("a")])).toEqual(new Map());
    expect((await watched([before, at(5101)], [recordOf("a")])).get("a")?.message).toMatch(/written 101 MiB/);
  });

  it("counts all of a cache that is new since the last look", async () => {
    const after = { running: [{ id: "a", mounted: { m: "/models" } }], volumes: { m: 101 } };
    expect((await watched([{ running: [] }, after], [recordOf("a")])).has("a")).toBe(true);
  });

  it("does not lay at a workload's door what another wrote just before", async () => {
    const earlier = { running: [{ id: "old", mounted: { m: "/models" } }], volumes: { m: 10 } };
    const later = { running: [{ id: "a", mounted: { m: "/models" } }], volumes: { m: 900 } };
    expect(await watched([earlier, later], [recordOf("a")])).toEqual(new Map());
  });

  it("goes on after a look that failed", async () => {
    const orders = await watched(
      [undefined as unknown as Disk, { running: [{ id: "a", layer: 101 }] }],
      [recordOf("a")],
    );
    expect(orders.has("a")).toBe(true);
  });

  it("looks at nothing while nothing runs, but once at the start", async () => {
    const diskAccount = vi.fn(() => Promise.resolve(account({ running: [] })));
    watches.push(
      watchDisk({
        engine: { diskAccount },
        runners: () => [{ record: recordOf("a", { state: "pulling" }), order: () => undefined }],
        limits: () => ({ diskMiB: 1 }),
        log: { warn: () => undefined },
        everyMs: 1,
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(diskAccount).toHaveBeenCalledTimes(1);
  });
});
