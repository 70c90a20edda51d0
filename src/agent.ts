import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { type AskedGpus, askGpus } from "./agent/asked-gpus.ts";
import { executor } from "./agent/commands.ts";
import { coordinatorLink } from "./agent/coordinator-link.ts";
import { engineSeen } from "./agent/engine-presence.ts";
import { NodeHealth } from "./agent/health.ts";
import { nodeHistory } from "./agent/history.ts";
import { nodeIsolation } from "./agent/isolation.ts";
import { type Leaving, stopWork } from "./agent/leave.ts";
import { ownerActions } from "./agent/owner-actions.ts";
import { nodePage } from "./agent/page.ts";
import { policyOf } from "./agent/policy.ts";
import { NodePreemption } from "./agent/preemption.ts";
import { type ProblemLog, problemLog } from "./agent/problem-log.ts";
import {
  besideMemory,
  clockMemory,
  coordinatorMemory,
  healthMemory,
  heardMemory,
  openImagesMemory,
  reliabilityMemory,
} from "./agent/settings.ts";
import { NodeTelemetry } from "./agent/telemetry.ts";
import { nodeView } from "./agent/view.ts";
import type { Config } from "./config/config.ts";
import { cosignCheck } from "./engine/cosign.ts";
import { createDockerEngine } from "./engine/docker.ts";
import { watchEngine } from "./engine/watch.ts";
import { createSamplingPause } from "./gpu/sampling-pause.ts";
import { watchGpus } from "./gpu/watch.ts";
import { steadyClock, uptimeMs } from "./host/clock.ts";
import type { HostDetails } from "./host/details.ts";
import { hostInventory } from "./host/inventory.ts";
import { bootId } from "./host/sampler.ts";
import { loadIdentity } from "./link/identity.ts";
import type { Link } from "./link/link.ts";
import type { Listener } from "./local/listener.ts";
import { startLocalApi } from "./local/server.ts";
import { Tally } from "./metrics/tally.ts";
import type { DurableEvent, EventBody, UsageEvent } from "./protocol/event.ts";
import { foldUsage, signUsage } from "./protocol/usage.ts";
import { openStore } from "./store/store.ts";
import { ReliabilityRecord } from "./telemetry/reliability.ts";
import { watchDisk } from "./workload/disk-watch.ts";
import { engineLacks } from "./workload/engine-demands.ts";
import { keptLogsIn } from "./workload/kept-logs.ts";
import { Meter } from "./workload/meter.ts";
import { prefetch } from "./workload/prefetch.ts";
import { isTerminal } from "./workload/state.ts";
import { Supervisor } from "./workload/supervisor.ts";

export type { Leaving } from "./agent/leave.ts";
export { removeTraces } from "./agent/traces.ts";

export interface AgentOptions {
  log: Logger;
  /** Aborted when the agent is to leave. */
  signal: AbortSignal;
  /** Asked once, after that: what becomes of the work. Without it, what runs goes on and is taken up by the next agent. */
  leave?(): Promise<Leaving>;
  version: string;
  /** The GPUs, asked before the agent was there. */
  asked?: AskedGpus;
  /** What the machine is called, by one who takes longer to find out; asked once. May reject. */
  hostDetails?(signal: AbortSignal): Promise<HostDetails>;
  /** Called once, when the local socket answers. */
  onReady(): void;
}

/** So old the time of the last word from the coordinator may be on disk, after a crash. */
const HEARD_SAVE_MS = 10_000;
/** The page and /metrics wait no longer than this for the coordinator to have been told of the GPUs. */
const PAGE_WAITS_MS = 100;
/** The coordinator is given so long to take the last event. */
const LAST_WORD_MS = 500;

/**
 * The daemon: builds the rooms, connects their doors, and resolves when `signal` was aborted and everything is closed, in
 * the reverse order. Rejects where it cannot start: state or socket in use, an unusable key.
 */
export async function runAgent(config: Config, options: AgentOptions): Promise<void> {
  const { log, signal, version, onReady } = options;
  await using rooms = new AsyncDisposableStack();
  const asked = rooms.use(options.asked ?? askGpus(config));
  const startedAt = Date.now();
  const identity = loadIdentity(join(config.stateDir, "identity.pem"));
  const fold = (records: readonly UsageEvent[]) => signUsage(foldUsage(records), identity.sign);
  // Filled in further down: what changed here is told there.
  let link: Link | undefined;
  let problems: ProblemLog | undefined;
  const changed = () => {
    link?.advertiseChanged();
    problems?.changed();
  };
  const storePath = join(config.stateDir, "gpunode.db");
  const store = rooms.use(openStore({ path: storePath, log, fold, onProblems: changed }));
  const tally = new Tally();
  store.onAppend((events) => tally.appended(events));
  const history = rooms.use(nodeHistory(store, log));
  // Written by the store itself, at once: this start may still fail, and the next one finds a sound database.
  const told = store.problems;
  const steady = steadyClock(bootId(), clockMemory(store));
  const heard = heardMemory(store);
  const saveHeard = () => heard.set(link?.status().lastFrameAt);
  const policy = policyOf(config, () => engineWatch.info);
  const { cosignKeys } = config.policy;
  const reliability = rooms.use(
    new ReliabilityRecord({
      memory: reliabilityMemory(store),
      now: Date.now,
      uptime: uptimeMs,
      bootId: bootId(),
      changed,
      log,
    }),
  );
  reliability.started();

  const engine = rooms.use(
    createDockerEngine({
      socketPath: config.docker.socket,
      nodeId: identity.firstNodeId,
      simulatedGpus: config.nvidia.simulated,
      openImages: openImagesMemory(store),
      log,
    }),
  );
  /** Tells what has happened, where the disk takes it; what the node is now, it tells with every advertisement all the same. */
  const tell = (events: EventBody[]): DurableEvent[] => {
    try {
      return store.append(events);
    } catch (error) {
      log.error(
        { err: error },
        "an event could not be recorded, and the coordinator will not hear of it: make room on the disk of state_dir",
      );
      return [];
    }
  };
  let onRead = () => {};
  let onEngine = changed;
  let host = hostInventory({ diskPath: config.stateDir });
  // Before the GPUs: while they are asked, the kernel's log is read.
  const health = rooms.use(
    new NodeHealth({
      config,
      store,
      engine,
      gpus: () => gpuWatch,
      supervisor: () => supervisor,
      memory: healthMemory(store),
      changed,
      log,
    }),
  );
  const [gpuWatch, engineWatch] = await Promise.all([
    watchGpus(asked.smi, {
      onChange: changed,
      onRead: () => onRead(),
      healthIntervalMs: config.telemetry.healthIntervalMs,
      kept: besideMemory(store, bootId()),
      paused: asked.pause.get() === bootId(),
    }),
    watchEngine(engine, config.docker.socket, () => onEngine()),
  ]);
  rooms.use(gpuWatch);
  rooms.use(engineWatch);
  const samplingPause = createSamplingPause(gpuWatch, asked.pause, bootId());

  const silentSince = () => {
    const status = link?.status();
    return status === undefined || status.state === "connected" ? undefined : (status.lastFrameAt ?? heard.get());
  };
  const meter = rooms.use(
    new Meter({ journal: store, ledger: store.ledger, sign: identity.sign, now: Date.now, steady, log }),
  );
  const isolation = await nodeIsolation({
    config,
    nodeId: identity.firstNodeId,
    engine,
    runners: () => supervisor.runners(),
    changed,
    log,
  });
  rooms.use(isolation);
  const supervisor: Supervisor = rooms.use(
    new Supervisor({
      engine,
      // Nobody waits for a coordinator that is not there.
      journal: {
        commit: (change) => store.commit(change),
        rows: () => store.rows(),
        told: async (seq, timeoutMs) => link?.status().state === "connected" && (await store.told(seq, timeoutMs)),
      },
      log,
      keptLogs: keptLogsIn(join(config.stateDir, "logs"), engine),
      now: Date.now,
      steady,
      policy,
      ...(cosignKeys.length > 0 && {
        requireSignature: cosignCheck({ keys: cosignKeys, cacheDir: join(config.stateDir, "sigstore") }),
      }),
      nodeId: identity.firstNodeId,
      ...(isolation !== undefined && { networks: isolation }),
      host: { architecture: host.architecture, cpus: host.cpus, memoryMiB: host.memoryMiB },
      driver: () => gpuWatch.inventory,
      gpus: () => health.gpus(),
      held: () => preemption.held(),
      engineProblem: () => engineWatch.problem,
      engineLacks: () => engineLacks(engineWatch.info, policy)[0]?.message,
      diskFreeMiB: () => telemetry.diskFreeMiB(),
      silentSince,
      changed: (record) => {
        // Its image may be new. Not sooner: an engine that tells of itself is slower to start a container.
        if (record.state === "running" || isTerminal(record.state)) engineWatch.refresh();
        meter.changed(record);
        telemetry.workloadsChanged();
        history.workload(record);
        preemption.workloadsChanged();
        if (isTerminal(record.state)) {
          reliability.ended(record);
          void samplingPause.setMaintenance(preemption.isEmptied);
        }
        changed();
      },
      progress: (record, currentBytes, totalBytes) => {
        tally.pulling(record, currentBytes);
        link?.offerProgress({ workload: record.id, phase: "pulling", currentBytes, totalBytes });
      },
    }),
  );
  const preemption: NodePreemption = rooms.use(
    new NodePreemption({
      config,
      store,
      supervisor,
      boards: () => gpuWatch.inventory.gpus,
      readGpus: () => gpuWatch.refresh(),
      tell,
      changed,
      steady,
      log,
    }),
  );
  const telemetry: NodeTelemetry = rooms.use(
    new NodeTelemetry({
      config,
      engine,
      store,
      gpus: gpuWatch,
      meter,
      records: () => supervisor.records(),
      steady,
      emit: (sample) => link?.offerTelemetry(sample),
      sampled: (samples) => health.sampled(samples),
      pressure: (event) => preemption.pressure(event),
      foreign: (processes) => preemption.processesRead(processes),
      log,
    }),
  );
  // Once more: it is to end before the work it could take off.
  rooms.use(health);
  telemetry.collector.onSample((sample) => history.sampled(sample));
  // Its runners are there at once; what is left is to ask the engine for strays.
  const restored = supervisor.restore();
  for (const record of supervisor.records()) history.workload(record);
  rooms.use(
    watchDisk({ engine, runners: () => supervisor.runners(), limits: (record) => supervisor.limits(record), log }),
  );
  tell([{ kind: "node", state: "started", reason: `gpunode ${version}` }]);
  preemption.start();
  isolation?.refresh();
  meter.restore(supervisor.records());
  telemetry.workloadsChanged();
  onRead = () => {
    health.read();
    telemetry.read();
  };
  await Promise.all([restored, health.start()]);
  onRead();
  onEngine = engineSeen({ engine: engineWatch, supervisor, preemption, isolation, tell, changed });
  void samplingPause.setMaintenance(preemption.isEmptied);

  let page: Listener | undefined;
  const view = nodeView({
    config,
    version,
    identity,
    startedAt,
    steady,
    isLeaving: () => signal.aborted,
    store,
    policy,
    host: () => host,
    engine: engineWatch,
    health,
    preemption,
    isolation,
    supervisor,
    telemetry,
    reliability,
    link: () => link?.status(),
    page: () => page,
  });
  const look = async () => {
    await telemetry.look();
    return view.snapshot();
  };
  rooms.use(
    await startLocalApi({
      socketPath: join(config.runDir, "gpunode.sock"),
      snapshot: look,
      actions: ownerActions({ identity, store, history, supervisor, preemption, samplingPause, link: () => link }),
      log,
    }),
  );

  const { snapshot } = view;
  const doors = {
    snapshot,
    telemetry,
    health,
    gpus: gpuWatch,
    nvidiaSmi: asked.runs,
    tally,
    store,
    storePath,
    link: () => link,
  };
  // Loaded with the first scrape: many a node never has one.
  const metrics = async () => (await import("./agent/metrics.ts")).nodeMetrics(doors);
  const execute = executor({
    supervisor,
    preemption,
    prefetch: (command) => prefetch(command, engine, policy, signal).then(() => engineWatch.refresh()),
    setTelemetryInterval: (intervalMs) => telemetry.setSession(intervalMs),
  });
  const hangUp = new AbortController();
  rooms.defer(() => hangUp.abort());
  const advertising = Promise.withResolvers<void>();
  link = coordinatorLink({
    config,
    version,
    bootId: bootId(),
    identity,
    events: store,
    memory: coordinatorMemory(store, Date.now),
    supervisor,
    telemetry,
    steady,
    saveHeard,
    advertisement: () => {
      advertising.resolve();
      return view.advertisement();
    },
    onCommand: execute,
    log,
  });
  const saving = setInterval(saveHeard, HEARD_SAVE_MS);
  rooms.defer(() => clearInterval(saving));
  const dialling = link?.run(hangUp.signal);
  // The coordinator hears of the GPUs first, where it is there.
  if (link !== undefined) await Promise.race([advertising.promise, sleep(PAGE_WAITS_MS, undefined, { ref: false })]);
  page = await nodePage({
    config,
    identity,
    store,
    history,
    snapshot: look,
    metrics,
    signal,
    log,
  });
  rooms.use(page);
  const gpuCount = gpuWatch.inventory.gpus.length;
  log.info(
    { node: identity.nodeId, gpus: gpuCount },
    `gpunode ${version} is up: ${gpuCount} ${gpuCount === 1 ? "GPU" : "GPUs"}, node ${config.name}`,
  );
  problems = rooms.use(problemLog(view.problems, { log, told }));
  onReady();
  const asking = options
    .hostDetails?.(signal)
    .then((details) => {
      host = { ...host, ...details };
      changed();
    })
    .catch((error: unknown) => log.debug({ err: error }, "systeminformation did not tell what the machine is called"));
  await untilAborted(signal);
  const leaving: Leaving = (await options.leave?.()) ?? { kind: "detach" };
  if (leaving.kind === "stop") {
    const deadlineAt = steady() + leaving.withinMs;
    await stopWork({ deadlineAt, message: leaving.message }, { supervisor, preemption, steady, log });
  }
  // What was used so far is told with the last word.
  meter[Symbol.dispose]();
  const reason = leaving.kind === "stop" ? leaving.message : "the agent leaves; what runs goes on";
  const [last] = tell([{ kind: "node", state: "stopping", reason }]);
  if (last !== undefined && link?.status().state === "connected") await store.told(last.seq, LAST_WORD_MS);
  hangUp.abort();
  await Promise.all([dialling, asking]);
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
