import { expect, it } from "vitest";
import { advertise, agent, api, coordinator, eventually, gpu, type Loose, newKey, scratch } from "./agent-side.ts";

const JOB = { id: "job", image: "busybox:1", gpus: { count: 1 }, secretEnv: { TOKEN: "hush" } };
const state = (seq: number, name: string, more: Record<string, unknown> = {}) => ({
  seq,
  workload: "job",
  generation: 1,
  state: name,
  ...more,
});

it("submit → assign → events → done", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  const submitted = await api(house, "POST", "/workloads", JOB);
  expect(submitted.status).toBe(201);
  expect(submitted.body).toMatchObject({
    id: "job",
    generation: 1,
    node: side.key.id,
    nodeName: "rig",
    gpus: ["GPU-0"],
  });

  const { workload } = await side.next("assign");
  expect(workload).toMatchObject({
    id: "job",
    generation: 1,
    image: "busybox:1",
    secretEnv: { TOKEN: "hush" },
    priority: 100,
  });
  expect((await api(house, "GET", "/workloads/job")).body.state).toBe("assigned");

  side.tell([state(1, "accepted"), state(2, "pulling")]);
  side.send({ type: "progress", workload: "job", phase: "pulling", currentBytes: 5, totalBytes: 10 });
  const pulling = await eventually(
    () => api(house, "GET", "/workloads/job"),
    ({ body }) => body.progress !== undefined,
  );
  expect(pulling.body).toMatchObject({ state: "pulling", progress: { currentBytes: 5, totalBytes: 10 } });

  side.tell([
    state(3, "starting"),
    state(4, "running", { gpus: ["GPU-0"], containerId: "c", ports: [{ container: 80, host: 30_000 }] }),
  ]);
  side.tell([
    { seq: 5, kind: "preemption", phase: "notice", cause: "owner", workloads: ["job"], gpus: ["GPU-0"] },
    state(6, "succeeded", { exitCode: 0, oomKilled: false }),
  ]);
  const done = await eventually(
    () => api(house, "GET", "/workloads/job"),
    ({ body }) => body.endedAt !== undefined,
  );
  expect(done.body).toMatchObject({ state: "succeeded", exitCode: 0, containerId: "c", ports: [{ host: 30_000 }] });
  expect(done.body.events.map((event: Loose) => event.state ?? event.kind)).toEqual([
    "accepted",
    "pulling",
    "starting",
    "running",
    "preemption",
    "succeeded",
  ]);
  expect((await api(house, "GET", "/workloads")).body.workloads).toHaveLength(1);
  expect((await api(house, "GET", `/nodes/${side.key.id}`)).body.workloads).toEqual([]);
});

it("states only go forward, and only the node's own word about this generation counts", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  const other = agent(house.url);
  await other.start(advertise({ gpus: [] }));
  await api(house, "POST", "/workloads", JOB);
  await side.next("assign");
  other.tell([state(1, "failed")]);
  await other.next("ack");
  side.tell([
    state(1, "running"),
    state(2, "pulling"),
    state(3, "failed", { generation: 0 }),
    state(4, "running", { healthy: true }),
  ]);
  await side.next("ack");
  expect((await api(house, "GET", "/workloads/job")).body).toMatchObject({ state: "running", healthy: true });
  side.tell([state(5, "preempted", { reason: "owner" }), state(6, "succeeded")]);
  await side.next("ack");
  expect((await api(house, "GET", "/workloads/job")).body).toMatchObject({ state: "preempted", reason: "owner" });
});

it("waits with a reason while nothing fits, and goes when a node comes that does", async () => {
  const house = await coordinator();
  expect((await api(house, "POST", "/workloads", JOB)).body).toMatchObject({
    state: "pending",
    message: "no node is connected",
  });
  const small = agent(house.url);
  await small.start(advertise({ gpus: [] }));
  const waiting = await eventually(
    () => api(house, "GET", "/workloads/job"),
    ({ body }) => body.message !== "no node is connected",
  );
  expect(waiting.body.message).toBe("rig: it has no GPU to give, 1 asked for");
  small.send(advertise({ revision: 2, gpus: [gpu()] }));
  expect((await small.next("assign")).workload.id).toBe("job");
  expect((await api(house, "GET", "/workloads/job")).body.message).toBeUndefined();
});

it("never counts on a GPU twice, and gives it on when the one before has ended", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  await api(house, "POST", "/workloads", JOB);
  await side.next("assign");
  const second = await api(house, "POST", "/workloads", { ...JOB, id: "next" });
  expect(second.body).toMatchObject({ state: "pending", message: "rig: 0 of 1 fitting GPUs are free, 1 asked for" });
  side.send(advertise({ revision: 2, gpus: [gpu({ allocatedTo: "job" })] }));
  side.tell([state(1, "running"), state(2, "succeeded")]);
  expect((await side.next("assign")).workload.id).toBe("next");
});

it("respects what others hold on the node", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start(advertise({ gpus: [gpu({ allocatedTo: "somebody-elses" })] }));
  expect((await api(house, "POST", "/workloads", JOB)).body.state).toBe("pending");
});

it.each(["reply", "event"])("goes elsewhere when its node refuses it (%s), under a new generation", async (how) => {
  const house = await coordinator();
  const first = agent(house.url);
  await first.start();
  const second = agent(house.url);
  await second.start(advertise({ gpus: [gpu({ uuid: "GPU-9", vramMiB: 80_000 })] }));
  if (how === "reply") first.replies.assign = { code: "image_not_allowed", message: "policy.images allows nothing" };
  await api(house, "POST", "/workloads", JOB);
  expect((await first.next("assign")).workload.generation).toBe(1);
  if (how === "event")
    first.tell([state(1, "rejected", { reason: "driver_too_old", message: "needs 12.4, has 11.8" })]);
  expect((await second.next("assign")).workload).toMatchObject({ generation: 2, secretEnv: { TOKEN: "hush" } });
  const { body } = await api(house, "GET", "/workloads/job");
  expect(body).toMatchObject({ node: second.key.id, state: "assigned", generation: 2, gpus: ["GPU-9"] });

  second.tell([state(1, "rejected", { generation: 2, reason: "policy_denied", message: "no" })]);
  const waiting = await eventually(
    () => api(house, "GET", "/workloads/job"),
    (told) => told.body.state === "pending",
  );
  expect(waiting.body.message).toMatch(
    how === "reply" ? /refused it: policy\.images allows nothing/ : /rejected it: needs 12\.4/,
  );
  expect(waiting.body.message).toMatch(/rejected it: no/);
  expect(first.frames.filter((frame) => frame.type === "assign")).toEqual([]);

  first.replies = {};
  first.send(advertise({ revision: 2 }));
  expect((await first.next("assign")).workload.generation).toBe(3);
});

it("closes a session that does not answer an assign; the next sync says it again", async () => {
  const house = await coordinator({ commandTimeoutMs: 100 });
  const key = newKey();
  const side = agent(house.url, { key });
  side.replies.assign = "silent";
  await side.start();
  await api(house, "POST", "/workloads", JOB);
  expect((await side.end()).code).toBe(4400);
  const sync = await agent(house.url, { key }).start();
  expect(sync.workloads).toMatchObject([{ id: "job", generation: 1, secretEnv: { TOKEN: "hush" } }]);
});

it("release: pending at once, running by its node, unknown to its node at once", async () => {
  const house = await coordinator();
  await api(house, "POST", "/workloads", JOB);
  expect((await api(house, "DELETE", "/workloads/job")).body).toMatchObject({ state: "stopped", reason: "released" });

  const side = agent(house.url);
  await side.start();
  expect((await api(house, "POST", "/workloads", JOB)).body.generation).toBe(2);
  expect((await side.next("assign")).workload.generation).toBe(2);
  expect((await api(house, "POST", "/workloads", JOB)).body.error).toMatchObject({ code: "conflict" });
  side.tell([state(1, "running", { generation: 2 })]);
  await side.next("ack");
  const released = await api(house, "DELETE", "/workloads/job", { graceSeconds: 3 });
  expect(released).toMatchObject({ status: 202, body: { state: "running", wanted: "stopped" } });
  expect(await side.next("release")).toMatchObject({ workload: "job", graceSeconds: 3 });
  side.tell([state(2, "stopped", { generation: 2, reason: "released", exitCode: 143 })]);
  await side.next("ack");
  expect((await api(house, "GET", "/workloads/job")).body).toMatchObject({ state: "stopped", exitCode: 143 });

  side.replies.release = { code: "unknown_workload", message: "never heard of it" };
  await api(house, "POST", "/workloads", { ...JOB, id: "other" });
  expect((await api(house, "DELETE", "/workloads/other")).body).toMatchObject({ state: "stopped", reason: "released" });
});

it("release while the node is away: not in the next sync", async () => {
  const house = await coordinator();
  const key = newKey();
  const side = agent(house.url, { key });
  await side.start(advertise({ gpus: [gpu(), gpu({ uuid: "GPU-1", index: 1 }), gpu({ uuid: "GPU-2", index: 2 })] }));
  for (const id of ["kept", "running", "never"]) await api(house, "POST", "/workloads", { ...JOB, id });
  side.tell([state(1, "running", { workload: "running" })]);
  await side.next("ack");
  await side.leave();
  await eventually(
    () => api(house, "GET", `/nodes/${key.id}`),
    ({ body }) => !body.connected,
  );
  for (const id of ["running", "never"]) expect((await api(house, "DELETE", `/workloads/${id}`)).status).toBe(202);

  const back = agent(house.url, { key });
  const hello = { events: { oldest: 2, newest: 2 }, workloads: [{ id: "running", generation: 1, state: "running" }] };
  const sync = await back.start(advertise(), hello);
  expect(sync.workloads.map((workload: Loose) => workload.id)).toEqual(["kept"]);
  expect((await api(house, "GET", "/workloads/never")).body.state).toBe("assigned");
  back.tell([state(2, "stopped", { workload: "running", reason: "not_assigned" })]);
  await back.next("ack");
  expect((await api(house, "GET", "/workloads/running")).body).toMatchObject({
    state: "stopped",
    reason: "not_assigned",
  });
  expect((await api(house, "GET", "/workloads/never")).body).toMatchObject({ state: "stopped", reason: "released" });
});

it("preempt, drain and resume reach the node, and its refusal the operator", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  await api(house, "POST", "/workloads", JOB);
  const preempted = await api(house, "POST", "/workloads/job/preempt", { graceSeconds: 1, reason: "needed" });
  expect(preempted.status).toBe(202);
  expect(await side.next("preempt")).toMatchObject({ workload: "job", graceSeconds: 1, reason: "needed" });
  side.replies.preempt = { code: "unknown_workload", message: "it is gone" };
  expect(await api(house, "POST", "/workloads/job/preempt")).toMatchObject({
    status: 404,
    body: { error: { code: "unknown_workload", message: "it is gone" } },
  });
  expect((await api(house, "POST", `/nodes/${side.key.id}/drain`, { graceSeconds: 5 })).status).toBe(200);
  expect(await side.next("drain")).toMatchObject({ graceSeconds: 5 });
  side.send(advertise({ revision: 2, state: "draining" }));
  await eventually(
    () => api(house, "GET", `/nodes/${side.key.id}`),
    ({ body }) => body.state === "draining",
  );
  expect((await api(house, "POST", "/workloads", { ...JOB, id: "b", gpus: { count: 0 } })).body.message).toBe(
    "rig: it is draining",
  );
  expect((await api(house, "POST", `/nodes/${side.key.id}/resume`)).status).toBe(200);
  await side.next("resume");
  await side.leave();
  await eventually(
    () => api(house, "GET", `/nodes/${side.key.id}`),
    ({ body }) => !body.connected,
  );
  expect((await api(house, "POST", `/nodes/${side.key.id}/drain`)).body.error.code).toBe("node_offline");
});

it("lost in the operator's view after the lease; true again when the node is back", async () => {
  let nowMs = Date.parse("2026-01-31T12:00:00.000Z");
  const house = await coordinator({ now: () => nowMs, leaseSeconds: 60 });
  const key = newKey();
  const side = agent(house.url, { key });
  await side.start();
  await api(house, "POST", "/workloads", JOB);
  await side.next("assign");
  side.tell([state(1, "running")]);
  await side.next("ack");
  nowMs += 120_000;
  await side.leave();
  await eventually(
    () => api(house, "GET", `/nodes/${key.id}`),
    ({ body }) => !body.connected,
  );
  nowMs += 59_000;
  expect((await api(house, "GET", "/workloads/job")).body.state).toBe("running");
  nowMs += 2000;
  const lost = await api(house, "GET", "/workloads/job");
  expect(lost.body).toMatchObject({ state: "lost", message: expect.stringMatching(/silent for 61 s; it was running/) });
  expect(lost.body.endedAt).toBeUndefined();

  const back = agent(house.url, { key });
  expect((await back.start()).workloads).toMatchObject([{ id: "job", generation: 1 }]);
  expect((await api(house, "GET", "/workloads/job")).body.state).toBe("running");
  await back.leave();
  await eventually(
    () => api(house, "GET", `/nodes/${key.id}`),
    ({ body }) => !body.connected,
  );
  nowMs += 61_000;

  // Submitted again elsewhere: the old node is no longer told to run it.
  const other = agent(house.url);
  await other.start();
  expect((await api(house, "POST", "/workloads", JOB)).body).toMatchObject({ generation: 2, node: other.key.id });
  const sync = await agent(house.url, { key }).start();
  expect(sync.workloads).toEqual([]);
});

it("survives a restart with what was submitted, assigned and told", async () => {
  const stateDir = scratch();
  const key = newKey();
  const first = await coordinator({ stateDir });
  const side = agent(first.url, { key });
  await side.start();
  await api(first, "POST", "/workloads", JOB);
  side.tell([state(1, "running")]);
  await side.next("ack");
  await api(first, "POST", "/workloads", { ...JOB, id: "waiting" });
  await first.close();

  const second = await coordinator({ stateDir });
  expect((await api(second, "GET", "/workloads/job")).body).toMatchObject({ state: "running", node: key.id });
  expect((await api(second, "GET", "/workloads/waiting")).body).toMatchObject({ state: "pending" });
  const back = agent(second.url, { key });
  const sync = await back.start(advertise(), { events: { oldest: 2, newest: 2 } });
  expect(sync.workloads).toMatchObject([{ id: "job", secretEnv: { TOKEN: "hush" } }]);
  back.tell([state(2, "succeeded")]);
  expect((await back.next("assign")).workload).toMatchObject({ id: "waiting", secretEnv: { TOKEN: "hush" } });
});
