import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import type { ContainerSpec, ContainerState } from "../workload/needs.ts";
import { ContainerAnswer, ContainerListAnswer, CreateAnswer } from "./answers.ts";
import { CREATE_MS, type EngineClient, parseAnswer, REMOVE_MS, START_MS } from "./client.ts";
import { containerState, createRequest, type EngineTraits, LABEL_NODE } from "./container.ts";
import { statusOf } from "./errors.ts";
import { requireRecorded } from "./gpu.ts";

/** A removal that somebody else began is asked after so often. */
const REMOVAL_POLL_MS = 100;

/** How Docker's storage drivers say that they hold no layer to a size, or not on this file system. */
const NO_DISK_LIMIT = /storage-opt|pquota|project quota|quota.*not (?:supported|enabled)|backing filesystem/i;

/**
 * The containers of this node: made, found, started, signalled and removed. Everything that changes one first makes sure
 * that it carries our label; the owner's other containers are seen, never touched.
 */
export function ownContainers(client: EngineClient, nodeId: string) {
  const { docker } = client;
  /** Full ids known to be ours: labels never change and ids are never used twice. */
  const known = new Set<string>();
  /** The storage has refused to hold a layer to a size: it is not asked again. */
  let refusesDiskLimit = false;

  /** Any container, ours or not, by id or name. */
  async function look(id: string, signal?: AbortSignal): Promise<ContainerState | undefined> {
    try {
      const answer = await client.ask(
        (abortSignal) => docker.getContainer(encodeURIComponent(id)).inspect({ abortSignal }),
        { doing: `look up container ${short(id)}`, signal },
      );
      const state = containerState(parseAnswer(ContainerAnswer, answer, "a container"));
      if (isOurs(state)) known.add(state.id);
      return state;
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
      known.delete(id);
      return undefined;
    }
  }

  function isOurs({ labels }: ContainerState): boolean {
    return labels[LABEL_NODE] === nodeId;
  }

  /** undefined where there is none of ours by that id or name. */
  async function inspect(id: string, signal?: AbortSignal): Promise<ContainerState | undefined> {
    const state = await look(id, signal);
    return state !== undefined && isOurs(state) ? state : undefined;
  }

  /** Its full id; undefined where there is none. Throws `internal` where it is not ours. */
  async function requireOwn(id: string): Promise<string | undefined> {
    if (known.has(id)) return id;
    const state = await look(id);
    if (state === undefined || isOurs(state)) return state?.id;
    throw new GpunodeError(
      "internal",
      `container ${state.name} (${short(state.id)}) does not carry the label ${LABEL_NODE}=${nodeId}: it is not this node's and is left alone`,
    );
  }

  async function requireThere(id: string): Promise<string> {
    const own = await requireOwn(id);
    if (own !== undefined) return own;
    throw new GpunodeError("internal", `container ${short(id)} is gone`, { details: { reason: "container_gone" } });
  }

  async function create(spec: ContainerSpec, engine: EngineTraits): Promise<string> {
    if (spec.labels[LABEL_NODE] !== nodeId) throw new Error(`a container spec without ${LABEL_NODE}=${nodeId}`);
    const id = await createOrFind(spec, engine);
    const state = await look(id);
    try {
      requireRecorded(engine.simulatedGpus ? [] : spec.gpus, state?.gpus ?? [], spec.name);
    } catch (error) {
      await remove(id);
      throw error;
    }
    return id;
  }

  async function createOrFind(spec: ContainerSpec, engine: EngineTraits): Promise<string> {
    const doing = `create container ${spec.name}`;
    for (let tried = 0; ; tried++) {
      const request = createRequest(spec, { ...engine, holdsDisk: engine.holdsDisk && !refusesDiskLimit });
      try {
        const answer = await client.ask((abortSignal) => docker.createContainer({ ...request, abortSignal }), {
          doing,
          timeoutMs: CREATE_MS,
        });
        return parseAnswer(CreateAnswer, answer, "a new container").id;
      } catch (error) {
        if (request.HostConfig?.StorageOpt !== undefined && NO_DISK_LIMIT.test(String(error))) {
          refusesDiskLimit = true;
          continue;
        }
        if (statusOf(error) !== 409) throw error;
        const there = await look(spec.name);
        if (there !== undefined) return adopt(there, spec);
        // It went away between the two answers: the name is free now.
        if (tried > 0) throw error;
      }
    }
  }

  function adopt(there: ContainerState, spec: ContainerSpec): string {
    const differs = Object.keys(spec.labels).find((label) => there.labels[label] !== spec.labels[label]);
    if (differs === undefined) return there.id;
    throw new GpunodeError(
      "internal",
      `the name ${spec.name} is taken by container ${short(there.id)}, which is not this workload's (its label ${differs} is ` +
        `${JSON.stringify(there.labels[differs] ?? "")}): remove or rename that container`,
      { details: { reason: "name_taken", container: there.id } },
    );
  }

  async function start(id: string): Promise<void> {
    const container = docker.getContainer(await requireThere(id));
    const doing = `start container ${short(id)}`;
    await client
      .ask((abortSignal) => container.start({ abortSignal }), { doing, timeoutMs: START_MS })
      .catch((error: unknown) => {
        // 304: it runs already.
        if (statusOf(error) !== 304) throw error;
      });
  }

  async function kill(id: string, signal: string, abortSignal?: AbortSignal): Promise<void> {
    const own = await requireOwn(id);
    if (own === undefined) return;
    await client
      .ask((aborted) => docker.getContainer(own).kill({ signal, abortSignal: aborted }), {
        doing: `send ${signal} to container ${short(id)}`,
        signal: abortSignal,
      })
      .catch((error: unknown) => {
        // 404: gone. 409: does not run.
        const status = statusOf(error);
        if (status !== 404 && status !== 409) throw error;
      });
  }

  async function remove(id: string): Promise<void> {
    const own = await requireOwn(id);
    if (own === undefined) return;
    try {
      await client.ask((abortSignal) => docker.getContainer(own).remove({ v: true, force: true, abortSignal }), {
        doing: `remove container ${short(own)}`,
        timeoutMs: REMOVE_MS,
      });
    } catch (error) {
      const status = statusOf(error);
      // 409: somebody else is removing it.
      if (status === 409) await gone(own, error);
      else if (status !== 404) throw error;
    }
    known.delete(own);
  }

  async function gone(id: string, error: unknown): Promise<void> {
    const deadline = performance.now() + REMOVE_MS;
    while ((await look(id)) !== undefined) {
      if (performance.now() > deadline) throw error;
      await sleep(REMOVAL_POLL_MS);
    }
  }

  async function list(ofNode: string): Promise<ContainerState[]> {
    const filters = { label: [`${LABEL_NODE}=${ofNode}`] };
    const answer = await client.ask((abortSignal) => docker.listContainers({ all: true, filters, abortSignal }), {
      doing: "list the containers",
    });
    const found: ContainerState[] = [];
    // The list has neither exit codes nor pids; one at a time, since there may be any number.
    for (const { Id } of parseAnswer(ContainerListAnswer, answer, "containers")) {
      const state = await look(Id);
      if (state !== undefined) found.push(state);
    }
    return found;
  }

  return { inspect, requireOwn, requireThere, create, start, kill, remove, list };
}

function short(id: string): string {
  return /^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id;
}
