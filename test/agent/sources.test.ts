import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { heldEvents } from "../faults/truth.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { course, patiently, Rig, Site } from "./rig.ts";
import { sh, stays, story, tells } from "./story.ts";

const HOUR_MS = 3_600_000;

/** A folder that is gone when the test is over. */
function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-sources-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

describe.runIf(haveEngine)("the hours in which the node is lent", { timeout: 120_000 }, () => {
  test("end: what runs saves its work in time; the node waits for the next opening, and opens by itself", async () => {
    const image = await pushImage("agent/sources:1", await smallImage());
    const clock = join(folder(), "clock");
    const closes = Math.ceil(Date.now() / 60_000) * 60_000;
    const opens = closes + 21 * HOUR_MS;
    /** What the node's clock shows from now on. */
    const setClock = (instant: number) => writeFileSync(clock, String(instant - Date.now()));
    const hhmm = (instant: number) => new Date(instant).toISOString().slice(11, 16);
    // They overlap: together they are lent from the first's start to the second's end.
    const windows = [
      [closes - 3 * HOUR_MS, closes - HOUR_MS / 2],
      [closes - HOUR_MS, closes],
    ].map(([from = 0, to = 0]) => `"${hhmm(from)}-${hhmm(to)}"`);
    const more = `availability = { windows = [${windows.join(", ")}], timezone = "UTC", notice_seconds = 30 }`;
    setClock(closes - 2 * HOUR_MS);
    await using site = await Site.open({ clock, more });
    const checkpoint = { exec: sh("echo saved >/proc/1/fd/1"), timeoutSeconds: 2 };
    await site.client.submit({
      id: "w",
      image,
      command: stays,
      gpus: { count: 1 },
      stop: { graceSeconds: 2, checkpoint },
    });
    await site.reaches("w", "running");
    expect(site.rig.status().holds).toEqual([]);

    await site.rig.end("SIGTERM");
    setClock(closes - 12_000);
    site.rig.start();
    const ahead = await site.rig.until(({ holds }) => holds.length > 0);
    const holds = [
      { cause: "schedule", message: `lent until ${hhmm(closes)} (UTC)`, until: expect.any(String) as string },
    ];
    expect(ahead).toMatchObject({
      node: { state: "draining" },
      holds,
      workloads: [{ id: "w", state: "running", notice: { cause: "schedule" } }],
    });
    expect(Math.abs(Date.parse(ahead.holds[0]?.until ?? "") - opens)).toBeLessThan(1000);
    expect(Math.abs(Date.parse(ahead.workloads[0]?.notice?.deadline ?? "") - closes)).toBeLessThan(1000);
    expect(site.rig.gpunode("status").stdout).toMatch(/gone in \d+ s: lent until \d\d:\d\d \(UTC\)/);
    expect((await site.client.submit({ id: "late", image, command: sh("true") })).state).toBe("pending");

    const view = await site.ends("w");
    expect(course(view).last).toMatchObject({ state: "preempted", reason: "schedule", exitCode: 0 });
    expect(Date.parse(String(course(view).last.at))).toBeLessThan(closes);
    expect(site.rig.gpunode("logs", "w").stdout).toBe("saved\n");
    const [notice] = view.events.filter(({ phase }) => phase === "notice");
    expect(Math.abs(Date.parse(String(notice?.deadline)) - closes)).toBeLessThan(1000);
    await tells(site, "draining schedule", "notice schedule", "checkpointed schedule", "finished schedule");

    await site.rig.end("SIGTERM");
    setClock(opens - 5_000);
    site.rig.start();
    const shut = await site.rig.until((snapshot) => snapshot.holds.length > 0);
    expect(shut.holds[0]?.message).toBe(`not lent before ${hhmm(opens)} (UTC)`);
    expect((await site.ends("late")).state).toBe("succeeded");
    expect((await story(site)).at(-1)).toBe("available schedule");
    expect(site.rig.status()).toMatchObject({ node: { state: "available" }, holds: [] });
  });

  test.each([
    ['windows = ["Mon-Fri 25:00-08:00"]', /availability\.windows.*"Mon-Fri 25:00-08:00" is none/],
    ['windows = ["Someday 10:00-11:00"]', /availability\.windows.*"Someday 10:00-11:00" is none/],
    ['windows = "10:00"', /availability\.windows.*expected/],
    ['timezone = "Mars/Olympus"', /availability\.timezone.*IANA time zone/],
  ])("that are no hours end the daemon before it starts: %s", async (line, says) => {
    await using rig = new Rig({ more: `availability = { ${line} }` });
    const { status, stderr } = rig.gpunode("run");
    expect(status).toBe(78);
    expect(stderr).toMatch(says);
  });
});

describe.runIf(haveEngine)("a program of the owner's on a lent GPU", { timeout: 120_000 }, () => {
  test("takes that GPU back and no other, by its name; when it has gone the GPU is lent again; a tenant's never does", async () => {
    const image = await pushImage("agent/sources:1", await smallImage());
    const loadFile = join(folder(), "load.json");
    const load = (of: object) => writeFileSync(loadFile, JSON.stringify(of));
    load({});
    await using site = await Site.open({
      env: { GPUNODE_TELEMETRY_HEALTH_INTERVAL_SECONDS: "1" },
      scenario: JSON.stringify({ gpus: [{ model: "rtx-4090", count: 2 }], loadFile }),
      more: "availability = { yield_to_owner = { seconds = 1 }, back_after_seconds = 2 }",
    });
    const uses = async (containerId: string, name: string, usedMiB: number) => {
      const { State } = await docker().getContainer(containerId).inspect();
      return { pid: State.Pid, name, usedMiB };
    };
    const running = async (id: string) => {
      await site.client.submit({ id, image, command: stays, gpus: { count: 1 }, stop: { graceSeconds: 5 } });
      const { gpus, events } = await site.reaches(id, "running");
      const containerId = events.flatMap((event) => (event.containerId as string | undefined) ?? [])[0] ?? "";
      return { uuid: gpus[0] ?? "", processes: [await uses(containerId, "python", 20_000)] };
    };
    const [a, b] = [await running("a"), await running("b")];
    load({ [a.uuid]: { processes: a.processes }, [b.uuid]: { processes: b.processes } });
    await patiently(async () => {
      const { workloads } = site.rig.status();
      return workloads.every(({ usage }) => usage?.vramUsedMiB === 20_000) ? true : undefined;
    });
    // Three reads of a second each, and nobody is found that it would be taken back for.
    await sleep(3000);
    expect(await story(site)).toEqual([]);

    const notebook = await docker().createContainer({ Image: image, Cmd: ["sleep", "1000"] });
    onTestFinished(async () => notebook.remove({ force: true }).catch(() => undefined));
    await notebook.start();
    const game = await uses(notebook.id, "/usr/games/doom", 9_000);
    const small = { ...game, name: "desktop", usedMiB: 300 };
    load({ [a.uuid]: { processes: [...a.processes, game] }, [b.uuid]: { processes: [...b.processes, small] } });
    expect(course(await site.ends("a")).last).toMatchObject({ state: "preempted", reason: "foreign_process" });
    const { holds, gpus } = site.rig.status();
    const index = gpus.find(({ uuid }) => uuid === a.uuid)?.index;
    const message = `doom (pid ${game.pid}, container ${notebook.id.slice(0, 12)}) uses 9000 MiB of GPU ${index}`;
    expect(holds).toMatchObject([{ cause: "foreign_process", gpus: [a.uuid], message }]);
    const shown = site.rig.gpunode("status").stdout;
    expect(shown).toMatch(/^node +rig is available/m);
    // Its name stands in front already.
    expect(shown).toContain(`\n  GPU ${index}: ${message.replace(/GPU \d+$/, "it")}\n`);
    await site.client.submit({ id: "next", image, command: sh("true"), gpus: { count: 1 } });
    expect((await site.client.workload("next")).state).toBe("pending");

    load({ [b.uuid]: { processes: [...b.processes, small] } });
    expect(await site.ends("next")).toMatchObject({ state: "succeeded", gpus: [a.uuid] });
    expect((await site.client.workload("b")).state).toBe("running");
    const whole = ["draining foreign_process 1", "notice foreign_process", "finished foreign_process"];
    await tells(site, ...whole, "available foreign_process 1");
    await site.client.release("b");
    await site.ends("b");
  });
});

describe.runIf(haveEngine)("a machine whose disk is nearly full", { timeout: 120_000 }, () => {
  test("takes nothing new and ends one workload at a time, the least important and youngest first", async () => {
    const image = await pushImage("agent/sources:1", await smallImage());
    await using site = await Site.open({ env: { GPUNODE_TELEMETRY_HEALTH_INTERVAL_SECONDS: "1" } });
    for (const [id, priority] of [
      ["older", 10],
      ["younger", 10],
      ["more", 500],
    ] as const) {
      await site.client.submit({ id, image, command: stays, priority, stop: { graceSeconds: 5 } });
      await site.reaches(id, "running");
    }
    // What is on this disk is too much from now on.
    await site.rig.end("SIGTERM");
    appendFileSync(
      site.rig.config,
      "pressure = { disk_elevated_percent = 1, disk_critical_percent = 2, disk_free_mib = 1073741824 }\n",
    );
    site.rig.start();
    const view = await site.ends("younger");
    expect(course(view).last).toMatchObject({
      state: "preempted",
      reason: "host_pressure",
      message: expect.stringMatching(/^the disk of this machine is nearly used up: \d+(\.\d+)? %, \d+ MiB free$/),
    });
    const { node, holds } = site.rig.status();
    expect(node.state).toBe("draining");
    expect(holds).toMatchObject([{ cause: "host_pressure", message: course(view).last.message }]);
    expect((await site.client.submit({ id: "new", image, command: sh("true") })).state).toBe("pending");
    await sleep(1500);
    for (const id of ["older", "more"]) expect((await site.client.workload(id)).state).toBe("running");
    await tells(site, "draining host_pressure", "notice host_pressure", "finished host_pressure");
    const events = await heldEvents(site.apiUrl);
    const seqOf = (kind: string) => events.findIndex((event) => event.kind === kind);
    expect(events[seqOf("pressure")]).toMatchObject({ resource: "disk", level: "critical" });
    expect(seqOf("pressure")).toBeLessThan(seqOf("preemption"));

    // The owner knows better, and says so.
    await site.rig.end("SIGTERM");
    appendFileSync(site.rig.config, "preemption = { host_pressure = false }\n");
    site.rig.start();
    expect((await site.ends("new")).state).toBe("succeeded");
    for (const id of ["older", "more"]) {
      await site.client.release(id);
      expect((await site.ends(id)).state).toBe("stopped");
    }
  });
});

describe.runIf(haveEngine)("two who want the same GPU back", { timeout: 120_000 }, () => {
  test("give one notice, and the earlier deadline holds", async () => {
    const image = await pushImage("agent/sources:1", await smallImage());
    await using site = await Site.open();
    const command = sh("trap '' TERM; while :; do sleep 0.1; done");
    await site.client.submit({ id: "w", image, command, gpus: { count: 1 }, stop: { graceSeconds: 100 } });
    await site.reaches("w", "running");
    const node = (await site.connected()).id;
    await site.client.drain(node, { graceSeconds: 90 });
    const first = await site.rig.until(({ workloads }) => workloads[0]?.notice !== undefined);
    site.rig.gpunode("reclaim", "--grace-seconds", "2", "--no-wait");
    const both = await site.rig.until(({ holds }) => holds.length === 2);
    const deadlineOf = ({ workloads }: typeof both) => Date.parse(workloads[0]?.notice?.deadline ?? "");
    expect(deadlineOf(first) - deadlineOf(both)).toBeGreaterThan(60_000);
    const view = await site.ends("w");
    expect(course(view).last).toMatchObject({ state: "preempted", reason: "coordinator", exitCode: 137 });
    await tells(site, "draining coordinator", "notice coordinator", "finished coordinator");
    // The one who goes does not give it back for the other.
    await site.client.resume(node);
    await site.rig.until(({ holds }) => holds.length === 1 && holds[0]?.cause === "owner");
    expect(site.rig.gpunode("resume").stdout).toBe("Available: workloads are accepted again.\n");
    await tells(site, "draining coordinator", "notice coordinator", "finished coordinator", "available owner");
  });

  test("and one that is told anew by each new daemon gives one notice", async () => {
    const image = await pushImage("agent/sources:1", await smallImage());
    await using site = await Site.open();
    await site.client.submit({ id: "w", image, command: stays, gpus: { count: 1 }, stop: { graceSeconds: 5 } });
    await site.reaches("w", "running");
    await site.rig.end("SIGTERM");
    const closes = new Date(Date.now() + 2 * HOUR_MS).toISOString().slice(11, 16);
    const opens = new Date(Date.now() - 2 * HOUR_MS).toISOString().slice(11, 16);
    appendFileSync(
      site.rig.config,
      `availability = { windows = ["${opens}-${closes}"], timezone = "UTC", notice_seconds = 10800 }\n`,
    );
    // Each reads two clocks anew, and comes to a deadline that is a little another one.
    for (let start = 1; start <= 3; start += 1) {
      site.rig.start();
      await site.rig.until(({ holds, connection }) => holds.length > 0 && connection.state === "connected");
      await site.rig.end("SIGTERM");
    }
    site.rig.start();
    await site.connected();
    const phases = (await story(site)).filter((line) => line.startsWith("notice"));
    expect(phases).toEqual(["notice schedule"]);
    expect((await site.client.workload("w")).state).toBe("running");
    await site.client.release("w");
    await site.ends("w");
  });
});
