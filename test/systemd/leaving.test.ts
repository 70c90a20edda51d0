import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { course, patiently } from "../agent/rig.ts";
import { canBootSystemd } from "../support/booted-systemd.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { NodeAsAService } from "./node-as-a-service.ts";

interface RunningJob {
  id: string;
  container: string;
  /** Of the daemon that began it. */
  mainPid: string;
}

describe.runIf(haveEngine && canBootSystemd)("leaving, under a booted systemd", { timeout: 120_000 }, () => {
  let node: NodeAsAService;
  let image: string;
  let number = 0;

  beforeAll(async () => {
    image = await pushImage("systemd/job:1", await smallImage());
    node = await NodeAsAService.install();
  }, 240_000);
  afterAll(async () => await node?.[Symbol.asyncDispose](), 60_000);

  /** A job that runs, on a service that runs. `onTerm`: what it does when it is told to end. */
  async function running(onTerm = "exit 0"): Promise<RunningJob> {
    await node.ready();
    number += 1;
    const id = `job-${number}`;
    const script = `trap '${onTerm}' TERM; while :; do sleep 0.1; done`;
    await node.client.submit({ id, image, command: ["sh", "-c", script], gpus: { count: 1 } });
    const container = String(course(await node.reaches(id, "running")).last.containerId);
    return { id, container, mainPid: await node.property("MainPID") };
  }

  /** The next daemon is there and has taken up the same container; nobody was given notice. */
  async function adopted({ id, container, mainPid }: RunningJob): Promise<void> {
    await patiently(async () => {
      const pid = await node.property("MainPID");
      return pid !== "0" && pid !== mainPid && (await node.property("SubState")) === "running" ? pid : undefined;
    });
    await node.connected();
    expect(await runs(container)).toBe(true);
    const view = await node.client.workload(id);
    expect(view.events.filter(({ kind }) => kind === "preemption")).toEqual([]);
    expect(course(view).states).toEqual(["accepted", "pulling", "starting", "running"]);
    expect(course(view).last).toMatchObject({ containerId: container });
    await node.client.release(id);
    expect(course(await node.reaches(id, "stopped")).last).toMatchObject({ exitCode: 0 });
  }

  const microseconds = async (property: string) => Number(await node.property(property));

  /** Notice with the cause first, then the signal, then the end, and all of it told. */
  function wasPreempted(view: WorkloadWithEvents, message: string, exitCode = 0): void {
    const told = view.events.map(({ kind, state, phase }) => String(kind === "workload" ? state : phase));
    expect(told.filter((word) => ["notice", "stopping", "preempted", "finished"].includes(word))).toEqual([
      "notice",
      "stopping",
      "preempted",
      "finished",
    ]);
    const notice = view.events.find(({ phase }) => phase === "notice");
    expect(notice).toMatchObject({
      cause: "host_shutdown",
      message: expect.stringContaining(message) as string,
    });
    expect(view.events.find(({ state }) => state === "preempted")).toMatchObject({
      reason: "host_shutdown",
      exitCode,
    });
  }

  test("systemctl restart leaves the work alone, and the next daemon takes it up", async () => {
    const job = await running();
    await node.systemctl("restart", "gpunode.service");
    await adopted(job);
  });

  test("a daemon that is killed, or ended and not stopped, is started again and takes its work up", async () => {
    const killed = await running();
    await node.systemctl("kill", "--kill-who=main", "--signal=SIGKILL", "gpunode.service");
    await adopted(killed);
    const ended = await running();
    await node.machine.run("sh", "-c", `kill ${ended.mainPid}`);
    await adopted(ended);
    expect(await node.journal()).toContain("the process was ended, not gpunode.service");
  });

  test("the watchdog leaves a daemon alone that reaches nobody, and ends one that hangs; its work goes on", async () => {
    const watchdog = "WatchdogSec=5\n";
    const alone = "Environment=GPUNODE_COORDINATOR_URL=ws://127.0.0.1:9 GPUNODE_DOCKER_SOCKET=/nowhere\n";
    await node.dropIn("watchdog", `[Service]\n${watchdog}${alone}`);
    await node.systemctl("restart", "gpunode.service");
    const [pid, since] = [await node.property("MainPID"), await microseconds("ActiveEnterTimestampMonotonic")];
    await patiently(async () => (await microseconds("WatchdogTimestampMonotonic")) > since + 6_000_000 || undefined);
    expect(await node.property("MainPID")).toBe(pid);

    await node.machine.write("/etc/hangs.mjs", 'process.on("SIGUSR2", () => { for (;;); });\n');
    const [, start = ""] = /argv\[\]=(.*?) ;/.exec(await node.property("ExecStart")) ?? [];
    const hangs = `ExecStart=\nExecStart=${start.replace(" ", " --import=/etc/hangs.mjs ")}\n`;
    await node.dropIn("watchdog", `[Service]\n${watchdog}${hangs}`);
    await node.systemctl("restart", "gpunode.service");
    const job = await running();
    await node.systemctl("kill", "--kill-who=main", "--signal=SIGUSR2", "gpunode.service");
    await node.dropIn("watchdog", "");
    await adopted(job);
    expect(await node.journal()).toMatch(/Watchdog timeout/);
  });

  test("systemctl stop gives notice, lets the job save itself, and then the service is down", async () => {
    const { id, container } = await running("sleep 1; exit 0");
    await node.systemctl("stop", "gpunode.service");
    expect(await node.property("ActiveState")).toBe("inactive");
    expect(await node.property("Result")).toBe("success");
    expect(await runs(container)).toBe(false);
    wasPreempted(await node.client.workload(id), "the service is stopped");
  });

  test("work that needs longer than the unit's TimeoutStopSec has the time that is configured", async () => {
    await node.dropIn("short", "[Service]\nTimeoutStopSec=2\n");
    const { id } = await running("sleep 5; exit 0");
    await node.systemctl("stop", "gpunode.service");
    expect(await node.property("Result")).toBe("success");
    wasPreempted(await node.client.workload(id), "the service is stopped");
    await node.dropIn("short", "");
  });

  test("a job that will not end is killed when the time that is configured is over", async () => {
    await node.dropIn("hurry", "[Service]\nEnvironment=GPUNODE_PREEMPTION_HOST_SHUTDOWN_SECONDS=2\n");
    await node.systemctl("restart", "gpunode.service");
    const { id, container } = await running(":");
    await node.systemctl("stop", "gpunode.service");
    expect(await runs(container)).toBe(false);
    wasPreempted(await node.client.workload(id), "the service is stopped", 137);
    await node.dropIn("hurry", "");
  });

  test("a unit that ours is part of: its restart is a restart, its stop a stop", async () => {
    await node.machine.write("/etc/systemd/system/base.service", "[Service]\nType=exec\nExecStart=sleep infinity\n");
    await node.dropIn("part", "[Unit]\nPartOf=base.service\nAfter=base.service\n");
    await node.systemctl("start", "base.service");
    const first = await running();
    await node.systemctl("restart", "base.service");
    await adopted(first);
    const { id } = await running();
    await node.systemctl("stop", "base.service");
    wasPreempted(await node.client.workload(id), "the service is stopped");
    await node.dropIn("part", "");
  });

  test("without D-Bus nobody can tell, so the work goes on and the log says why", async () => {
    const job = await running();
    await node.systemctl("stop", "dbus.socket", "dbus.service");
    await node.systemctl("stop", "gpunode.service");
    expect(await node.property("ActiveState")).toBe("inactive");
    expect(await node.journal("--priority=warning")).toMatch(/^systemd cannot be asked whether it stops or restarts/m);
    await node.systemctl("start", "dbus.socket", "dbus.service");
    await node.ready();
    await adopted(job);
  });

  test("with preemption.host_shutdown = false the work goes on when the service is stopped", async () => {
    await node.dropIn("off", "[Service]\nEnvironment=GPUNODE_PREEMPTION_HOST_SHUTDOWN=false\n");
    await node.systemctl("restart", "gpunode.service");
    const job = await running();
    await node.systemctl("stop", "gpunode.service");
    await node.dropIn("off", "");
    await node.ready();
    await adopted(job);
  });

  test("the machine's shutdown gives notice while the network is there, and ends the work before it is off", async () => {
    const { id, container } = await running("sleep 1; exit 0");
    // The call's own connection goes down with the machine.
    await node.machine.attempt("systemctl", "--no-block", "poweroff");
    await node.machine.off;
    wasPreempted(await node.client.workload(id), "the machine shuts down");
    expect(await runs(container)).toBe(false);
    // It would be removed at the next boot, if there were one.
    await docker()
      .getContainer(container)
      .remove()
      .catch(() => undefined);
  });
});

async function runs(container: string): Promise<boolean> {
  return (await docker().listContainers()).some(({ Id }) => Id === container);
}
