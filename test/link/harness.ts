import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type Identity, loadIdentity } from "../../src/link/identity.ts";
import { Link, type LinkOptions } from "../../src/link/link.ts";
import type { Advertisement, AgentCommand, LinkDoors, LinkStatus } from "../../src/link/needs.ts";
import type { EventBody } from "../../src/protocol/event.ts";
import { openStore, type Store } from "../../src/store/store.ts";
import { FakeCoordinator, type FakeCoordinatorOptions } from "../support/fake-coordinator.ts";

/** A folder that is gone after the test. */
export function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-link-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export async function fakeCoordinator(options: FakeCoordinatorOptions = {}): Promise<FakeCoordinator> {
  const fake = await FakeCoordinator.start(options);
  onTestFinished(() => fake[Symbol.asyncDispose]());
  return fake;
}

export interface AgentSide {
  link: Link;
  store: Store;
  doors: LinkDoors;
  nodeId: string;
  identity: Identity;
  commands: AgentCommand[];
  syncs: (readonly unknown[])[];
  /** `welcome` and `end`, in order. */
  sessions: string[];
  /** All that was logged, as JSON. */
  logged: string[];
  /** What is advertised from now on; tell the link with `advertiseChanged`. */
  advertised: Advertisement;
  /** Ends the link and waits for it; more than once is no error. */
  stop(): Promise<void>;
}

export interface AgentOptions extends Partial<LinkOptions> {
  url: string;
  /** State of an earlier agent, to be that node again. */
  dir?: string;
  doors?: Partial<LinkDoors>;
  /** Written before the link dials. */
  events?: EventBody[];
}

/** A link with a real store and a real key, dialling at once and often. It is gone after the test. */
export function startAgent({ dir = scratch(), doors: changes, events = [], ...options }: AgentOptions): AgentSide {
  const identity = loadIdentity(join(dir, "identity.pem"));
  const store = openStore({ path: join(dir, "state.db") });
  store.append(events);
  const logged: string[] = [];
  const note = (level: string) => (fields: object, message: string) => {
    logged.push(
      JSON.stringify({ level, message, ...fields }, (_key, value) =>
        value instanceof Error ? `${value.stack}` : value,
      ),
    );
  };
  const doors: LinkDoors = {
    identity,
    events: store,
    memory: {
      hasWelcomed: (coordinator, key) => store.get(`welcomed:${key} ${coordinator}`) !== undefined,
      rememberWelcome: (coordinator, key) => store.set(`welcomed:${key} ${coordinator}`, "yes"),
    },
    describeNode: () => ({
      node: { name: "rig", labels: { site: "garage" }, bootId: "boot", agentVersion: "9.9.9" },
      workloads: [{ id: "w", generation: 3, state: "running" }],
    }),
    advertisement: () => side.advertised,
    onWelcome: () => side.sessions.push("welcome"),
    onSync: (workloads) => side.syncs.push(workloads),
    onCommand: (command) => {
      side.commands.push(command);
    },
    openLogs: async function* () {},
    onSessionEnd: () => side.sessions.push("end"),
    log: { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") },
    ...changes,
  };
  const link = new Link({ backoff: { firstMs: 10, mostMs: 50, lastedMs: 100 }, ...options }, doors);
  const abort = new AbortController();
  const done = link.run(abort.signal);
  const side: AgentSide = {
    link,
    store,
    doors,
    nodeId: identity.nodeId,
    identity,
    commands: [],
    syncs: [],
    sessions: [],
    logged,
    advertised: {
      gpus: [],
      host: { architecture: "amd64", cpus: 8, memoryMiB: 32_000 },
      engine: { kind: "docker", available: true },
      policy: { images: ["*"], hostPorts: "30000-30999", allowRoot: true },
      images: [],
    },
    stop: async () => {
      abort.abort();
      await done;
      await store[Symbol.asyncDispose]();
    },
  };
  onTestFinished(() => side.stop());
  return side;
}

export function nodeEvents(count: number, reason = "x"): EventBody[] {
  return Array.from({ length: count }, (_, index) => ({
    kind: "node",
    state: "started",
    reason: `${reason}${index + 1}`,
  }));
}

/** Asks until `look` is content. */
export async function eventually<T>(
  look: () => T | undefined | false,
  what: string | (() => string),
  timeoutMs = 5000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  while (true) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`did not come to pass: ${typeof what === "string" ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits for a state of the link. */
export function linkState(side: AgentSide, state: LinkStatus["state"]): Promise<LinkStatus> {
  return eventually(
    () => {
      const status = side.link.status();
      return status.state === state ? status : undefined;
    },
    `link state ${state}, it is ${JSON.stringify(side.link.status())}`,
  );
}
