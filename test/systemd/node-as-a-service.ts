import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "vitest";
import { CoordinatorClient, type WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { startCoordinator } from "../../src/coordinator/server.ts";
import { patiently } from "../agent/rig.ts";
import { type Bind, type BootedSystemd, type BootOptions, bootSystemd } from "../support/booted-systemd.ts";
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
  readonly #coordinatorUrl: string;
  readonly #rooms: AsyncDisposableStack;
  readonly #nodeIds = new Set<string>();

  static async install(): Promise<NodeAsAService> {
    await using rooms = new AsyncDisposableStack();
    const node = rooms.use(
      await NodeAsAService.without([
        { from: resolve(import.meta.dirname, "../.."), to: INSTALLATION },
        { from: process.execPath, to: NODE },
      ]),
    );
    await node.machine.write("/etc/gpunode/config.toml", node.config(`${INSTALLATION}/bin/nvidia-smi-sim.js`));
    await node.dropIn("simulated", "[Service]\nEnvironment=GPUNODE_SIM_SCENARIO=rtx4090x2\n");
    await node.machine.run(NODE, `${INSTALLATION}/bin/gpunode.js`, "service", "install");
    await node.connected();
    rooms.move();
    return node;
  }

  /** The machine with the engine's socket, and the coordinator; nothing is installed. */
  static async without(binds: readonly Bind[], options: BootOptions = {}): Promise<NodeAsAService> {
    await using rooms = new AsyncDisposableStack();
    const stateDir = mkdtempSync(join(tmpdir(), "gpunode-service-"));
    rooms.defer(() => rmSync(stateDir, { recursive: true, force: true }));
    const listen = { host: "127.0.0.1", port: 0 };
    const coordinator = await startCoordinator({ listen, stateDir, open: true, telemetryIntervalMs: 1000 });
    rooms.defer(() => coordinator.close());
    const socket = { from: engineSocket(), to: "/run/docker.sock", writable: true } as const;
    const machine = await bootSystemd([...binds, socket], options);
    rooms.defer(() => machine[Symbol.asyncDispose]());
    // The engine's socket belongs to a group of this machine's; inside, that number is called docker.
    await machine.run("groupadd", "--non-unique", "--gid", String(statSync(engineSocket()).gid), "docker");
    return new NodeAsAService(machine, coordinator, rooms.move());
  }

  private constructor(
    machine: BootedSystemd,
    coordinator: { url: string; apiUrl: string },
    rooms: AsyncDisposableStack,
  ) {
    this.machine = machine;
    this.client = new CoordinatorClient(coordinator.apiUrl, {});
    this.#coordinatorUrl = coordinator.url;
    this.#rooms = rooms;
  }

  /** A configuration for this coordinator and simulated GPUs. */
  config(smi: string): string {
    return `name = "booted"
coordinator = { url = "${this.#coordinatorUrl}" }
nvidia = { smi = "${smi}", simulated = ${!engineIsPrivate} }
policy = { allow_root = true }
network = { isolate_lan = false }
metrics = { listen = "off" }
`;
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

  /** Resolves to the id of the node that is connected. */
  async connected(): Promise<string> {
    const { id } = await patiently(
      async () => (await this.client.nodes()).find(({ connected, gpus }) => connected && gpus),
      60_000,
    );
    this.#nodeIds.add(id);
    return id;
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
    for (const id of this.#nodeIds) expect(await containersLeft(`org.gpunode.node=${id}`)).toEqual([]);
  }
}
