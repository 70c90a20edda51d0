import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, patiently, Site } from "./rig.ts";

const MIB = 1024 * 1024;

describe.runIf(haveEngine)("a job whose GPU is taken back", { timeout: 120_000 }, () => {
  let site: Site;
  let image: string;
  beforeAll(async () => {
    image = await pushImage("agent/notice:1", await smallImage());
    site = await Site.open();
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
  });

  const sh = (script: string) => ["sh", "-c", script];
  const output = (id: string) => site.rig.gpunode("logs", id).stdout;
  /** It runs and has said that it is ready. */
  const ready = async (id: string) => {
    await site.reaches(id, "running");
    await patiently(() => (output(id).includes("ready") ? true : undefined));
  };
  /** Phases of its preemption and its own states, in the order they happened. */
  const story = ({ events }: WorkloadWithEvents) =>
    events.flatMap(({ kind, phase, state }) => (kind === "preemption" ? [phase] : kind === "workload" ? [state] : []));
  const noticesOf = ({ events }: WorkloadWithEvents) => events.filter(({ phase }) => phase === "notice");
  const secondsBetween = (view: WorkloadWithEvents, from: string, to: string) => {
    const at = (what: string) =>
      Date.parse(String(view.events.find(({ phase, state }) => phase === what || state === what)?.at));
    return (at(to) - at(from)) / 1000;
  };
  /** Waits for its end without ever coming to one of its own; says so when SIGTERM comes. */
  const untilTerm = "trap 'echo got TERM; exit 143' TERM; echo ready; while :; do sleep 0.1; done";

  test("finds why and until when in the file its environment names, at the latest when SIGTERM comes", async () => {
    const script = `trap 'cat "$GPUNODE_PREEMPTION_FILE"; exit 143' TERM; [ -e "$GPUNODE_PREEMPTION_FILE" ] || echo ready; while :; do sleep 0.1; done`;
    await site.client.submit({
      id: "reader",
      image,
      user: "1000:1000",
      command: sh(script),
      gpus: { count: 1 },
      env: { GPUNODE_PREEMPTION_FILE: "/nowhere" },
    });
    await ready("reader");
    await site.client.preempt("reader", { graceSeconds: 3, reason: "a better offer" });
    const view = await site.ends("reader");
    expect(view.state).toBe("preempted");
    const [, file = ""] = output("reader").split("\n");
    const notice = JSON.parse(file) as { deadline: string; at: string };
    expect(notice).toMatchObject({ version: 1, phase: "notice", cause: "coordinator", message: "a better offer" });
    const [told] = noticesOf(view);
    // The same moment from two clocks: the record's order by the steady one, the event's by the wall clock.
    expect(Math.abs(Date.parse(notice.deadline) - Date.parse(String(told?.deadline)))).toBeLessThan(1000);
    expect(Date.parse(notice.at)).toBeLessThan(Date.parse(notice.deadline));
  });

  test("gets the signal it asked for with the file there, then its checkpoint, then SIGTERM", async () => {
    const script = `trap 'test -e "$GPUNODE_PREEMPTION_FILE" && echo USR1 with file; touch /told' USR1; ${untilTerm}`;
    // Would wait in vain for a signal that comes after it.
    const save =
      'until [ -e /told ]; do sleep 0.05; done; grep -q coordinator "$GPUNODE_PREEMPTION_FILE" && echo saved >/proc/1/fd/1';
    const checkpoint = { exec: sh(save), timeoutSeconds: 20 };
    await site.client.submit({
      id: "signal",
      image,
      command: sh(script),
      gpus: { count: 1 },
      stop: { noticeSignal: "SIGUSR1", graceSeconds: 10, checkpoint },
    });
    await ready("signal");
    await site.client.preempt("signal");
    const view = await site.ends("signal");
    expect(output("signal")).toBe("ready\nUSR1 with file\nsaved\ngot TERM\n");
    expect(story(view).slice(-5)).toEqual(["notice", "stopping", "checkpointed", "preempted", "finished"]);
    expect(course(view).last).toMatchObject({ state: "preempted", reason: "coordinator", exitCode: 143 });
  });

  test("with a checkpoint that never ends: it is cut at its time, and SIGTERM comes all the same", async () => {
    const checkpoint = { exec: sh("sleep 1000"), timeoutSeconds: 2 };
    await site.client.submit({ id: "endless", image, command: sh(untilTerm), stop: { checkpoint } });
    await ready("endless");
    await site.client.preempt("endless");
    const view = await site.ends("endless");
    expect(output("endless")).toBe("ready\ngot TERM\n");
    expect(view.events.find(({ phase }) => phase === "checkpointed")).toMatchObject({ message: "cut after 2 s" });
    expect(secondsBetween(view, "stopping", "checkpointed")).toBeGreaterThanOrEqual(1.9);
    expect(course(view).last).toMatchObject({ state: "preempted", exitCode: 143 });
  });

  test("with a checkpoint that prints gigabytes: it costs the node no memory, and is cut", async () => {
    const checkpoint = { exec: ["yes", "x".repeat(1000)], timeoutSeconds: 5 };
    await site.client.submit({ id: "loud", image, command: sh(untilTerm), stop: { checkpoint } });
    await ready("loud");
    const before = rssMiB(site.rig.pid);
    let most = 0;
    const over = new AbortController();
    const watching = (async () => {
      while (!over.signal.aborted) {
        most = Math.max(most, rssMiB(site.rig.pid));
        await sleep(50);
      }
    })();
    await site.client.preempt("loud");
    const view = await site.ends("loud");
    over.abort();
    await watching;

    expect(most - before).toBeLessThan(64);
    expect(view.events.find(({ phase }) => phase === "checkpointed")).toMatchObject({ message: "cut after 5 s" });
    expect(output("loud")).toBe("ready\ngot TERM\n");
    expect(view.state).toBe("preempted");
  });

  test("and that ignores SIGTERM is killed at its deadline", async () => {
    const script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    await site.client.submit({ id: "stubborn", image, command: sh(script), gpus: { count: 1 } });
    await ready("stubborn");
    await site.client.preempt("stubborn", { graceSeconds: 2 });
    const view = await site.ends("stubborn");
    expect(course(view).last).toMatchObject({ state: "preempted", exitCode: 137 });
    expect(secondsBetween(view, "notice", "preempted")).toBeGreaterThanOrEqual(1.9);
    expect(secondsBetween(view, "notice", "preempted")).toBeLessThan(20);
    await patiently(() =>
      site.rig.status().workloads.some(({ id, state }) => id === "stubborn" && state === "preempted")
        ? true
        : undefined,
    );
  });

  test("twice, the second time sooner: it ends sooner, with one notice", async () => {
    const script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    await site.client.submit({ id: "twice", image, command: sh(script), gpus: { count: 1 } });
    await ready("twice");
    await site.client.preempt("twice", { graceSeconds: 600, reason: "some time tonight" });
    await site.reaches("twice", "stopping");
    await site.client.preempt("twice", { graceSeconds: 1, reason: "now" });
    const view = await site.ends("twice");
    expect(noticesOf(view)).toHaveLength(1);
    expect(course(view).last).toMatchObject({ state: "preempted", message: "some time tonight", exitCode: 137 });
  });

  test("during its pull ends preempted, never ran, and leaves no container", async () => {
    await using registry = await startRegistry();
    const built = await smallImage({ paddingBytes: 64 * MIB });
    const slow = registry.add("notice/slow:1", built, { bytesPerSecond: 256 * 1024 });
    await site.client.submit({ id: "pulling", image: slow, gpus: { count: 1 } });
    await site.reaches("pulling", "pulling");
    await patiently(() =>
      registry.requests.some(({ path }) => path.includes("notice/slow/blobs")) ? true : undefined,
    );
    await site.client.preempt("pulling");
    const view = await site.ends("pulling");
    expect(story(view)).toEqual(["accepted", "pulling", "notice", "preempted", "finished"]);
    expect(course(view).last).not.toHaveProperty("exitCode");
    const left = await docker().listContainers({ all: true, filters: { label: ["org.gpunode.workload=pulling"] } });
    expect(left).toEqual([]);
    const holders = site.rig.status().gpus.map(({ allocatedTo }) => allocatedTo);
    expect(holders).not.toContain("pulling");
  });

  test("and leaves neither its inbox nor the door it was written through", async () => {
    const label = `org.gpunode.node=${site.rig.nodeId}`;
    await patiently(async () =>
      (await docker().listContainers({ all: true, filters: { label: [label] } })).length === 0 ? true : undefined,
    );
    const { Volumes } = await docker().listVolumes({ filters: { label: [label] } } as object);
    expect(Volumes ?? []).toEqual([]);
  });
});

function rssMiB(pid: number): number {
  const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) / 1024;
}
