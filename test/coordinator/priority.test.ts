import { describe, expect, it } from "vitest";
import { candidateOf } from "../../src/coordinator/candidate.ts";
import { matchByPriority } from "../../src/coordinator/match-by-priority.ts";
import { OpenSpec, type WorkloadRecord } from "../../src/coordinator/workload-table.ts";
import { Advertise } from "../../src/protocol/agent-frames.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { type AgentSide, advertise, agent, api, coordinator, eventually, gpu, newKey, scratch } from "./agent-side.ts";

const policy = { images: ["*"], hostPorts: "30000-30999", allowRoot: true, priorityPreemption: true };
const gpus = (count: number) => Array.from({ length: count }, (_, index) => gpu({ index, uuid: `GPU-${index}` }));
const node = (changes: Record<string, unknown> = {}) => advertise({ policy, ...changes });

/** What the workload with this id is told to have become. */
const state = (seq: number, workload: string, name: string, more: Record<string, unknown> = {}) => ({
  seq,
  workload,
  generation: 1,
  state: name,
  ...more,
});

const BATCH = { id: "batch", image: "i", gpus: { count: 1 }, secretEnv: { TOKEN: "hush" } };
const URGENT = { id: "urgent", image: "i", gpus: { count: 1 }, priority: 500 };

describe("which node's", () => {
  type Input = Partial<Pick<WorkloadRecord, "state" | "wanted" | "createdAt" | "gpus">> & { spec?: object };

  function placed(id: string, { spec, ...rest }: Input): WorkloadRecord {
    const {
      id: _id,
      generation: _g,
      registryAuth: _r,
      secretEnv: _s,
      ...open
    } = Workload.parse({
      id,
      generation: 1,
      image: "i",
      gpus: { count: 1 },
      ...spec,
    });
    return {
      id,
      generation: 1,
      spec: OpenSpec.parse({ ...open, secretEnvNames: [], hasRegistryAuth: false }),
      wanted: "run",
      node: "n",
      state: "running",
      gpus: ["GPU-0"],
      detail: {},
      createdAt: "2026-01-31T12:00:00.000Z",
      updatedAt: "2026-01-31T12:00:00.000Z",
      ...rest,
    };
  }

  function candidate(
    name: string,
    here: Record<string, Input>,
    changes: { advertise?: object; refusal?: string } = {},
  ) {
    const advertisement = Advertise.parse(JSON.parse(JSON.stringify(node({ gpus: gpus(2), ...changes.advertise }))));
    const records = Object.entries(here).map(([id, input]) => placed(id, input));
    return candidateOf({ id: name, name, advertisement, refusal: changes.refusal }, records, (id) => id === "over");
  }

  const wants = (changes: object = {}) =>
    Workload.parse({ id: "urgent", generation: 1, image: "i", gpus: { count: 1 }, priority: 500, ...changes });
  const first = { gpus: ["GPU-0"] };
  const second = { gpus: ["GPU-1"] };

  it.each<[string, ReturnType<typeof candidate>[], object, string, string[]]>([
    [
      "the one whose victim has the lowest priority",
      [
        candidate("a", { a0: { ...first, spec: { priority: 20 } }, a1: { ...second, spec: { priority: 30 } } }),
        candidate("b", { b0: { ...first, spec: { priority: 90 } }, b1: { ...second, spec: { priority: 10 } } }),
      ],
      {},
      "b",
      ["b1"],
    ],
    [
      "the one where the fewest have to end",
      [
        candidate("a", { a0: { ...first, spec: { priority: 1 } }, a1: { ...second, spec: { priority: 1 } } }),
        candidate("b", { both: { gpus: ["GPU-0", "GPU-1"], spec: { priority: 400 } } }),
      ],
      { gpus: { count: 2 } },
      "b",
      ["both"],
    ],
    [
      "the one where the youngest has to end",
      [
        candidate("a", { old: first, fixed: { ...second, spec: { preemptible: false } } }),
        candidate("b", {
          young: { ...first, createdAt: "2026-01-31T13:00:00.000Z" },
          fixed: { ...second, spec: { preemptible: false } },
        }),
      ],
      {},
      "b",
      ["young"],
    ],
    [
      "the one that has the memory, once they are gone",
      [
        candidate("a", {
          a0: first,
          a1: { ...second, spec: { preemptible: false, resources: { memoryMiB: 30_000 } } },
        }),
        candidate("b", {
          b0: { ...first, spec: { priority: 300, resources: { memoryMiB: 30_000 } } },
          b1: { ...second, spec: { preemptible: false } },
        }),
      ],
      { resources: { memoryMiB: 16_000 } },
      "b",
      ["b0"],
    ],
    [
      "the one that has room in number, once they are gone",
      [candidate("a", { a0: first, a1: second }, { advertise: { policy: { ...policy, maxWorkloads: 2 } } })],
      {},
      "a",
      ["a0"],
    ],
    [
      "the GPU that no stranger holds",
      [
        candidate(
          "a",
          { a1: second },
          { advertise: { gpus: [gpu({ uuid: "GPU-0", allocatedTo: "somebody" }), gpu({ uuid: "GPU-1", index: 1 })] } },
        ),
      ],
      {},
      "a",
      ["a1"],
    ],
    [
      "a GPU that the node says the victim holds",
      [
        candidate(
          "a",
          { a0: { gpus: [] } },
          {
            advertise: { gpus: [gpu({ uuid: "GPU-0", allocatedTo: "a0" })] },
          },
        ),
      ],
      {},
      "a",
      ["a0"],
    ],
  ])("%s", (_, candidates, request, where, takesFrom) => {
    expect(matchByPriority(wants(request), candidates)).toMatchObject({ fits: true, node: where, takesFrom });
  });

  const held = { one: first, two: second };
  it.each<[string, ReturnType<typeof candidate>, object?]>([
    [
      "where the node does not say it does that",
      candidate("a", held, { advertise: { policy: { ...policy, priorityPreemption: false } } }),
    ],
    ["that refused it", candidate("a", held, { refusal: "refused it" })],
    ["that is draining", candidate("a", held, { advertise: { state: "draining" } })],
    ["whose engine is away", candidate("a", held, { advertise: { engine: { kind: "docker", available: false } } })],
    ["of equal priority", candidate("a", held), { priority: 100 }],
    [
      "where what ends already is enough: that is waited for",
      candidate("a", { one: first, two: { ...second, state: "stopping" } }),
    ],
    ["where the operator released one already", candidate("a", { one: first, two: { ...second, wanted: "stopped" } })],
    [
      "where a stranger holds it",
      candidate("a", {}, { advertise: { gpus: [gpu({ uuid: "GPU-0", allocatedTo: "somebody" })] } }),
    ],
    [
      "where the last holder's end is known already: it is free",
      candidate("a", {}, { advertise: { gpus: [gpu({ uuid: "GPU-0", allocatedTo: "over" })] } }),
    ],
    [
      "where another takes it already",
      candidate("a", {
        one: first,
        two: { ...second, spec: { preemptible: false } },
        coming: { ...first, state: "assigned", spec: { priority: 500 } },
      }),
    ],
    ["where there is not that much memory even so", candidate("a", held), { resources: { memoryMiB: 40_000 } }],
  ])("nobody's %s", (_, only, request) => {
    expect(matchByPriority(wants(request), [only])).toBeUndefined();
  });
});

/** A coordinator, and an agent whose only GPU the batch has. */
async function house(batch: Record<string, unknown> = {}) {
  const stateDir = scratch();
  const key = newKey();
  const at = await coordinator({ stateDir });
  const side = agent(at.url, { key });
  await side.start(node());
  await api(at, "POST", "/workloads", { ...BATCH, ...batch });
  await side.next("assign");
  side.tell([state(1, "batch", "running", { gpus: ["GPU-0"] })]);
  await side.next("ack");
  return { at, side, key, stateDir };
}

const view = async (at: Parameters<typeof api>[0], id: string) => (await api(at, "GET", `/workloads/${id}`)).body;
const assigns = ({ frames }: AgentSide) => frames.filter(({ type }) => type === "assign");

it("a workload of higher priority is sent where a lower one runs, and that ends by the node's word", async () => {
  const { at, side } = await house();
  const submitted = await api(at, "POST", "/workloads", URGENT);
  expect(submitted.body).toMatchObject({ state: "assigned", node: side.key.id, gpus: ["GPU-0"] });
  expect((await side.next("assign")).workload).toMatchObject({ id: "urgent", priority: 500 });
  expect(await view(at, "batch")).toMatchObject({ state: "running" });
  // A second one of the same priority takes from neither.
  expect((await api(at, "POST", "/workloads", { ...URGENT, id: "equal" })).body.state).toBe("pending");

  side.tell([
    state(2, "urgent", "accepted", { gpus: ["GPU-0"] }),
    state(3, "batch", "stopping", { reason: "priority" }),
    state(4, "batch", "preempted", { reason: "priority", message: "workload urgent of priority 500 takes its GPU" }),
    state(5, "urgent", "running", { gpus: ["GPU-0"] }),
  ]);
  await side.next("ack");
  const ended = await view(at, "batch");
  expect(ended).toMatchObject({ state: "preempted", reason: "priority", generation: 1 });
  expect(ended.endedAt).toBeDefined();
  expect(assigns(side)).toEqual([]);
});

it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
  ["of the same priority", { priority: 500 }, {}],
  ["that is not preemptible", { preemptible: false }, {}],
])("a workload waits for one %s", async (_, batch, urgent) => {
  const { at, side } = await house(batch);
  expect((await api(at, "POST", "/workloads", { ...URGENT, ...urgent })).body).toMatchObject({
    state: "pending",
    message: "rig: 0 of 1 fitting GPUs are free, 1 asked for",
  });
  expect(assigns(side)).toEqual([]);
});

it("what is to be requeued waits as its next generation, and resumes with its secrets when there is room", async () => {
  const { at, side } = await house({ onPreempt: "requeue" });
  expect((await view(at, "batch")).spec.onPreempt).toBe("requeue");
  await api(at, "POST", "/workloads", URGENT);
  await side.next("assign");
  side.send(node({ revision: 2, gpus: [gpu({ allocatedTo: "urgent" })] }));
  side.tell([
    state(2, "urgent", "accepted", { gpus: ["GPU-0"] }),
    state(3, "batch", "stopping", { reason: "priority" }),
    state(4, "batch", "preempted", { reason: "priority" }),
    state(5, "urgent", "running", { gpus: ["GPU-0"] }),
  ]);
  await side.next("ack");
  const waiting = await view(at, "batch");
  expect(waiting).toMatchObject({
    state: "pending",
    generation: 2,
    wanted: "run",
    gpus: [],
    message: "rig: 0 of 1 fitting GPUs are free, 1 asked for",
  });
  expect(waiting.endedAt).toBeUndefined();
  expect(waiting.node).toBeUndefined();
  // It never takes the GPU back from the higher priority, however often the node speaks.
  side.send(node({ revision: 3, gpus: [gpu({ allocatedTo: "urgent" })] }));
  await eventually(
    () => api(at, "GET", `/nodes/${side.key.id}`),
    ({ body }) => body.revision === 3,
  );
  expect(assigns(side)).toEqual([]);

  side.tell([state(6, "urgent", "succeeded", { exitCode: 0 })]);
  const { workload } = await side.next("assign");
  expect(workload).toMatchObject({ id: "batch", generation: 2, secretEnv: { TOKEN: "hush" } });
  expect(workload.onPreempt).toBeUndefined();
  // What is still told of the generation before is none of this one's.
  side.tell([state(7, "batch", "failed"), state(8, "batch", "running", { generation: 2, gpus: ["GPU-0"] })]);
  await side.next("ack");
  side.tell([state(9, "batch", "succeeded", { generation: 2 })]);
  await eventually(
    () => view(at, "batch"),
    (told) => told.state === "succeeded" && told.endedAt !== undefined,
  );
});

it("it still waits, with its secrets, after a restart of the coordinator", async () => {
  const { at, side, key, stateDir } = await house({ onPreempt: "requeue" });
  side.replies.assign = { code: "draining", message: "the node is draining" };
  side.tell([state(2, "batch", "preempted", { reason: "owner" })]);
  await eventually(
    () => view(at, "batch"),
    (told) => told.generation > 1 && told.state === "pending",
  );
  await at.close();
  const next = await coordinator({ stateDir });
  const back = agent(next.url, { key });
  await back.start(node(), { events: { oldest: 3, newest: 2 } });
  expect((await back.next("assign")).workload).toMatchObject({ id: "batch", secretEnv: { TOKEN: "hush" } });
});

it.each(["before it was preempted", "while it waits"])("released %s it ends for good", async (when) => {
  const { at, side } = await house({ onPreempt: "requeue" });
  await api(at, "POST", "/workloads", URGENT);
  await side.next("assign");
  const release = () => api(at, "DELETE", "/workloads/batch");
  side.tell([state(2, "urgent", "accepted", { gpus: ["GPU-0"] }), state(3, "batch", "stopping")]);
  await side.next("ack");
  if (when === "before it was preempted") await release();
  side.tell([state(4, "batch", "preempted", { reason: "priority" })]);
  await side.next("ack");
  if (when === "while it waits") await release();
  const ended = await eventually(
    () => view(at, "batch"),
    (told) => told.endedAt !== undefined,
  );
  expect(ended.state).toBe(when === "while it waits" ? "stopped" : "preempted");
  side.tell([state(5, "urgent", "succeeded")]);
  await side.next("ack");
  expect(assigns(side)).toEqual([]);
});

it("where the node says no after all, nothing is asked of it again until it advertises anew", async () => {
  const { at, side } = await house();
  side.replies.assign = { code: "gpu_busy", message: "1 fitting GPU asked for, 0 of 1 free" };
  await api(at, "POST", "/workloads", URGENT);
  await side.next("assign");
  const waiting = await eventually(
    () => view(at, "urgent"),
    (told) => told.state === "pending",
  );
  expect(waiting).toMatchObject({ generation: 2, message: "rig: refused it: 1 fitting GPU asked for, 0 of 1 free" });
  expect(assigns(side)).toEqual([]);
  side.replies = {};
  side.send(node({ revision: 2, gpus: [gpu({ allocatedTo: "batch" })] }));
  expect((await side.next("assign")).workload).toMatchObject({ id: "urgent", generation: 2 });
});

it("several at once take from as many, each from another", async () => {
  const at = await coordinator();
  const side = agent(at.url);
  await side.start(node({ gpus: gpus(2) }));
  for (const [n, id] of ["a", "b"].entries()) {
    await api(at, "POST", "/workloads", { ...BATCH, id });
    await side.next("assign");
    side.tell([state(n + 1, id, "running", { gpus: [`GPU-${n}`] })]);
    await side.next("ack");
  }
  const given = [];
  for (const id of ["x", "y", "z"]) given.push((await api(at, "POST", "/workloads", { ...URGENT, id })).body);
  expect(given.map(({ state: now }) => now)).toEqual(["assigned", "assigned", "pending"]);
  expect(new Set(given.flatMap(({ gpus: uuids }) => uuids))).toEqual(new Set(["GPU-0", "GPU-1"]));
});

it("what follows a preemption is one of two words", async () => {
  const at = await coordinator();
  expect(await api(at, "POST", "/workloads", { ...BATCH, onPreempt: "retry" })).toMatchObject({
    status: 400,
    body: { error: { code: "invalid_spec", message: expect.stringMatching(/onPreempt/) } },
  });
  expect((await api(at, "POST", "/workloads", BATCH)).body.spec.onPreempt).toBe("end");
});
