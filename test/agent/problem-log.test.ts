import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { problemLog } from "../../src/agent/problem-log.ts";
import { ownerOfProcess } from "../../src/host/cgroup.ts";
import type { Problem } from "../../src/protocol/agent-frames.ts";
import { patiently, Rig } from "./rig.ts";

describe("a problem of the node", () => {
  const away = { code: "engine_unavailable", message: "the engine is away" };
  const lost = { code: "state_lost", message: "the database was damaged" };

  function watched(now: Problem[], told: Problem[] = []) {
    const lines: string[] = [];
    let reads = 0;
    const note = (level: string) => (_fields: object, message: string) => void lines.push(`${level} ${message}`);
    const log = { info: note("info"), warn: note("warn") } as unknown as Parameters<typeof problemLog>[1]["log"];
    const problems = () => {
      reads += 1;
      return now;
    };
    return { lines, problems: problemLog(problems, { log, told }), reads: () => reads };
  }

  test("is written when it comes and when it has gone, and not while it stands", async () => {
    const now: Problem[] = [];
    const { lines, problems, reads } = watched(now);
    now.push(away);
    for (let turn = 0; turn < 3; turn += 1) {
      problems.changed();
      problems.changed();
      await nextTurn();
    }
    expect(lines).toEqual(["warn the engine is away"]);
    // Once at the start, then once for each turn in which something changed.
    expect(reads()).toBe(4);
    now.pop();
    problems.changed();
    await nextTurn();
    expect(lines).toEqual(["warn the engine is away", "info no longer so: the engine is away"]);
  });

  test("in other words is the same problem, told anew", async () => {
    const now = [away];
    const { lines, problems } = watched(now);
    now[0] = { ...away, message: "the engine is still away" };
    problems.changed();
    await nextTurn();
    expect(lines).toEqual(["warn the engine is away", "warn the engine is still away"]);
  });

  test("that was written already is not written again; nothing is looked at after the end", async () => {
    const { lines, problems, reads } = watched([lost, away], [lost]);
    problems.changed();
    problems[Symbol.dispose]();
    await nextTurn();
    expect(lines).toEqual(["warn the engine is away"]);
    expect(reads()).toBe(1);
  });
});

test("what stands at the start is in the daemon's log once, whichever room has it", async () => {
  await using rig = new Rig({
    socket: "/nonexistent/docker.sock",
    network: "isolate_lan = true",
    env: { GPUNODE_NVIDIA_KERNEL_LOG: "/nonexistent/kmsg" },
  });
  rig.start();
  const { problems } = await rig.until(({ node }) => node.state === "available");
  const codes = problems.map(({ code }) => code);
  expect(codes).toEqual(expect.arrayContaining(["engine_unavailable", "kernel_log_unreadable"]));
  const written = () => rig.log.split("\n").filter((line) => line.includes('"level":"warn"'));
  await patiently(() =>
    problems.every(({ message }) => rig.log.includes(JSON.stringify(message).slice(1, -1))) ? true : undefined,
  );
  // That the owner's programs cannot be told apart is said, too, where it is so.
  const namesNobody = [1, process.pid].every((pid) => ownerOfProcess(pid) === undefined);
  expect(rig.log.match(/does not get it by itself here/g) ?? []).toHaveLength(namesNobody ? 1 : 0);
  for (const { message } of problems) {
    expect(written().filter((line) => line.includes(JSON.stringify(message).slice(1, -1)))).toHaveLength(1);
  }
});
