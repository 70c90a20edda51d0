import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "vitest";
import { CoordinatorClient, type WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { startCoordinator } from "../../src/coordinator/server.ts";
import { patiently } from "../agent/rig.ts";
import { type BootedSystemd, bootSystemd } from "../support/booted-systemd.ts";
import { containersLeft, engineIsPrivate, engineSocket } from "../support/engine.ts";

const INSTALLATION = "/opt/gpunode";
const NODE = "/usr/local/bin/node";

/**
 * A machine of its own on which `gpunode service install` was run: the service under a real systemd, as its own user, with the run's
 * Docker engine and simulated GPUs. Its coordinator runs in the test.
 */
export class NodeAsAService implements AsyncDisposable {
  readonly machine: BootedSystemd;
  readonly client: CoordinatorClient;
  readonly #rooms: AsyncDisposableStack;
  #nodeId = "";

  static async install(): Promise<NodeAsAService> {
    await using rooms = new AsyncDisposableStack();
    const stateDir = mkdtempSync(join(tmpdir(), "gpunode-service-"));
    rooms.defer(() => rmSync(stateDir, { recursive: true, force: true }));
    const listen = { host: "127.0.0.1", port: 0 };
    const coordinator = await startCoordinator({ listen, stateDir, open: true, telemetryIntervalMs: 1000 });
    rooms.defer(() => coordinator.close());
    const machine = await bootSystemd([
      { from: resolve(import.meta.dirname, "../.."), to: INSTALLATION },
      { from: process.execPath, to: NODE },
      { from: engineSocket(), to: "/run/docker.sock", writable: true },
    ]);
    rooms.defer(() => machine[Symbol.asyncDispose]());
    // The engine's socket belongs to a group of this machine's; inside, that number is called docker.
    await machine.run("groupadd", "--non-unique", "--gid", String(statSync(engineSocket()).gid), "docker");
    await machine.write(
      "/etc/gpunode/config.toml",
      `name = "booted"
coordinator = { url = "${coordinator.url}" }
nvidia = { smi = "${INSTALLATION}/bin/nvidia-smi-sim.js", simulated = ${!engineIsPrivate} }
policy = { allow_root = true }
network = { isolate_lan = false }
`,
    );
    const node = new NodeAsAService(machine, new CoordinatorClient(coordinator.apiUrl, {}), rooms.move());
    await node.dropIn("simulated", "[Service]\nEnvironment=GPUNODE_SIM_SCENARIO=rtx4090x2\n");
    await machine.run(NODE, `${INSTALLATION}/bin/gpunode.js`, "service", "install");
    await node.connected();
    return node;
  }

  private constructor(machine: BootedSystemd, client: CoordinatorClient, rooms: AsyncDisposableStack) {
    this.machine = machine;
    this.client = client;
    this.#rooms = rooms;
  }

  systemctl(...args: string[]): Promise<string> {
    return this.machine.run("systemctl", ...args);
  }

  /** A property of the unit, as `systemctl show` writes it. */
  property(name: string): Promise<string> {
    return this.systemctl("show", "--value", `--property=${name}`, "gpunode.service");
  }

  /** What the daemon has logged, all starts of it. */
  journal(...filter: string[]): Promise<string> {
    return this.machine.run("journalctl", "--unit=gpunode.service", "--output=cat", "--no-pager", ...filter);
  }

  /** Changes the unit, for as long as the machine lives. */
  async dropIn(name: string, text: string): Promise<void> {
    await this.machine.write(`/etc/systemd/system/gpunode.service.d/${name}.conf`, text);
    await this.systemctl("daemon-reload");
  }

  async connected(): Promise<void> {
    const found = await patiently(
      async () => (await this.client.nodes()).find(({ connected, gpus }) => connected && gpus),
      60_000,
    );
    this.#nodeId = found.id;
  }

  /** The service as it is after a boot: running, connected, with nothing to do. */
  async ready(): Promise<void> {
    await this.systemctl("reset-failed", "gpunode.service");
    await this.systemctl("start", "gpunode.service");
    await this.connected();
  }

  /** The workload once it is in this state. */
  async reaches(id: string, state: string): Promise<WorkloadWithEvents> {
    return await patiently(async () => {
      const view = await this.client.workload(id);
      return view.state === state ? view : undefined;
    }, 60_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rooms.disposeAsync();
    expect(this.machine.leftovers()).toEqual([]);
    expect(await containersLeft(`org.gpunode.node=${this.#nodeId}`)).toEqual([]);
  }
}
