import { setTimeout as sleep } from "node:timers/promises";
import { commandKindOf, parseCommand, type Request } from "./command.ts";
import { csvQuery, queryHelp, unknownField } from "./csv.ts";
import { ScenarioError } from "./errors.ts";
import { type Fault, faultsAt, garbage, noDevices, startFailure } from "./faults.ts";
import { readLoadFile } from "./load.ts";
import type { Scenario, SimulatedGpu } from "./scenario.ts";
import { clockOf, openScenario, type ScenarioSource, type SimulatorEnvironment } from "./source.ts";
import { type GpuState, sample } from "./state.ts";
import { summaryTable } from "./table.ts";
import { gpuList, help, migInstances, nvlinkStatus, topology, versions } from "./text.ts";
import { lostDocument, xmlDocument } from "./xml.ts";

/** Where the simulator writes, and what may end it early. */
export interface SimulatorPorts {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  /** Ends a stream or a hang, as a signal would. */
  readonly signal?: AbortSignal;
}

/** Exit codes that are not nvidia-smi's own: a scenario that cannot be read (sysexits EX_CONFIG), and death by SIGPIPE. */
const exitCodes = { configuration: 78, brokenPipe: 141, aborted: 143 } as const;

/** How often a hang looks whether it is over. */
const hangPollMs = 50;

/**
 * Answers one nvidia-smi command line from the scenario that `env` names, and tells its exit code. A stream (`-lms`, `-l`) runs
 * until the reader closes its end, `signal` aborts, or the scenario ends it.
 */
export async function runSimulator(
  argv: readonly string[],
  env: SimulatorEnvironment,
  { stdout, stderr, signal }: SimulatorPorts,
): Promise<number> {
  const write = writerOf(stdout);
  try {
    const simulation = { source: openScenario(env), now: clockOf(env), write, ...(signal && { signal }) };
    return await answer(argv, simulation);
  } catch (error) {
    if (error instanceof ScenarioError) {
      await writerOf(stderr)(`nvidia-smi-sim: ${error.message}\n`);
      return exitCodes.configuration;
    }
    if (isBrokenPipe(error)) return exitCodes.brokenPipe;
    if (signal?.aborted) return exitCodes.aborted;
    throw error;
  }
}

/** Runs this process's own command line and sets its exit code. */
export async function runAsCommand(): Promise<void> {
  const { argv, env, stdout, stderr } = process;
  process.exitCode = await runSimulator(argv.slice(2), env, { stdout, stderr });
}

type Write = (data: string | Uint8Array) => Promise<void>;

interface Simulation {
  readonly source: ScenarioSource;
  readonly now: () => number;
  readonly write: Write;
  readonly signal?: AbortSignal;
}

function writerOf(stream: NodeJS.WritableStream): Write {
  // Without a listener a closed pipe would be thrown out of the event loop; the callback below tells it to who is writing.
  stream.on("error", () => undefined);
  return (data) =>
    new Promise((done, failed) => {
      stream.write(data, (error) => (error ? failed(error) : done()));
    });
}

function isBrokenPipe(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "EPIPE" || code === "ERR_STREAM_DESTROYED" || code === "ERR_STREAM_WRITE_AFTER_END";
}

async function answer(argv: readonly string[], simulation: Simulation): Promise<number> {
  const { source, write } = simulation;
  const request = parseCommand(argv);
  const inForce = () => faultsNow(request, simulation);
  await waitOut(inForce, simulation);
  const faults = inForce();
  const { driver, gpus } = source.current();
  const failure = startFailure(faults, driver);
  if (failure !== undefined) {
    await write(failure.text);
    return failure.exitCode;
  }
  if (faults.some((fault) => fault.kind === "garbage")) {
    await write(garbage);
    return 0;
  }
  if ("refusal" in request) {
    await write(request.refusal);
    return request.exitCode;
  }
  const general = withoutGpus(request, source.current());
  if (general !== undefined) {
    await write(general);
    return 0;
  }
  if (
    gpus.length === 0 ||
    select(gpus, request.ids).length === 0 ||
    faults.some((fault) => fault.kind === "noDevices")
  ) {
    await write(noDevices.text);
    return noDevices.exitCode;
  }
  return stream(request, faults, simulation);
}

function faultsNow(request: ReturnType<typeof parseCommand>, { source, now }: Simulation): Fault[] {
  const { faults } = source.current();
  const kind = "refusal" in request ? "help" : commandKindOf(request);
  return faultsAt(faults, source.elapsedMs(now()), kind);
}

/** Holds the answer back as long as a hang is in force, or by what `slow` says. */
async function waitOut(inForce: () => readonly Fault[], { signal }: Simulation): Promise<void> {
  const slow = inForce().find((fault) => fault.kind === "slow");
  if (slow !== undefined) await sleep(slow.ms, undefined, { ...(signal && { signal }) });
  while (inForce().some((fault) => fault.kind === "hang")) {
    await sleep(hangPollMs, undefined, { ...(signal && { signal }) });
  }
}

/** Answers that need no GPU. */
function withoutGpus(request: Request, { driver }: Scenario): string | undefined {
  if (request.kind === "version") return versions(driver);
  if (request.kind === "help") return help(driver);
  if (request.kind === "help-query") return queryHelp(request.query, driver);
  return undefined;
}

/** The answer once, or again and again where a loop was asked for. */
async function stream(request: Request, atStart: readonly Fault[], simulation: Simulation): Promise<number> {
  const { source, now, write, signal } = simulation;
  const lostAtStart = new Set(lostGpus(atStart));
  const started = now();
  for (let round = 0; ; round++) {
    const inForce = () => faultsNow(request, simulation);
    if (round > 0) await waitOut(inForce, simulation);
    const faults = inForce();
    const scenario = source.current();
    const allLost = faults.some((fault) => fault.kind === "allLost");
    const lostSinceStart = new Set(
      allLost ? scenario.gpus.map((gpu) => gpu.index) : lostGpus(faults).filter((gpu) => !lostAtStart.has(gpu)),
    );
    const at = { faults, nowMs: now(), allLost, lostSinceStart, firstRound: round === 0 };
    const page = compose(request, scenario, simulation, at);
    const half = faults.find((fault) => fault.kind === "halfDocument");
    await write(half === undefined ? page.text : page.text.slice(0, Math.floor(page.text.length / 2)));
    if (half?.end === "hang") await forever(signal);
    if (half !== undefined || allLost || request.loopMs === undefined || page.end) return allLost ? 15 : page.exitCode;
    // Against the start, so that slow rounds do not add up.
    const wait = started + (round + 1) * request.loopMs - now();
    await sleep(Math.max(0, wait), undefined, { ...(signal && { signal }) });
  }
}

function lostGpus(faults: readonly Fault[]): number[] {
  return faults.flatMap((fault) => (fault.kind === "lostGpu" ? [fault.gpu] : []));
}

async function forever(signal: AbortSignal | undefined): Promise<void> {
  for (;;) await sleep(60_000, undefined, { ...(signal && { signal }) });
}

interface Round {
  readonly faults: readonly Fault[];
  readonly nowMs: number;
  readonly allLost: boolean;
  readonly lostSinceStart: ReadonlySet<number>;
  readonly firstRound: boolean;
}

interface Page {
  readonly text: string;
  readonly exitCode: number;
  /** Whether nothing may follow. */
  readonly end?: boolean;
}

/** One round's answer. */
function compose(request: Request, scenario: Scenario, { source }: Simulation, round: Round): Page {
  const { driver } = scenario;
  const elapsedMs = source.elapsedMs(round.nowMs);
  const fileLoads = scenario.loadFile === undefined ? new Map() : readLoadFile(scenario.loadFile);
  const all = sample(scenario, { elapsedMs, faults: round.faults, fileLoads });
  const gpus = select(scenario.gpus, request.ids);
  const states = all.filter((state) => gpus.includes(state.gpu));
  const context = { driver, now: new Date(round.nowMs), attached: scenario.gpus.length };
  const exitCode = states.some((state) => state.missing === "handle") ? 15 : 0;
  switch (request.kind) {
    case "table":
      return summaryTable(states, context);
    case "list":
      return { text: gpuList(states, driver), exitCode };
    case "xml":
      return { text: round.allLost ? lostDocument(context) : xmlDocument(states, context), exitCode };
    case "query":
      return queryPage(request, states, { ...context, lostSinceStart: round.lostSinceStart }, { round, exitCode });
    case "topology":
      return { text: topology(gpus, driver), exitCode };
    case "nvlink":
      return { text: nvlinkStatus(gpus), exitCode };
    case "mig":
      return { text: migInstances(gpus), exitCode };
    default:
      return { text: "", exitCode };
  }
}

function queryPage(
  request: Extract<Request, { kind: "query" }>,
  states: readonly GpuState[],
  context: Parameters<Exclude<ReturnType<typeof csvQuery>, { unknown: string }>["rows"]>[1],
  { round, exitCode }: { readonly round: Round; readonly exitCode: number },
): Page {
  const query = csvQuery(request.query, request.fields, { driver: context.driver, format: request.format });
  if ("unknown" in query) return { text: unknownField(query.unknown), exitCode: 2, end: true };
  const header = request.format.header && round.firstRound ? [query.header] : [];
  const lines = [...header, ...query.rows(states, context)];
  return { text: lines.map((line) => `${line}\n`).join(""), exitCode };
}

/** The GPUs `-i` names: by index, UUID, serial or bus id with or without its domain; all where nothing is named. */
function select(gpus: readonly SimulatedGpu[], ids: readonly string[] | undefined): readonly SimulatedGpu[] {
  if (ids === undefined) return gpus;
  const named = (gpu: SimulatedGpu, id: string) =>
    id === String(gpu.index) || id === gpu.uuid || id === gpu.serial || isBusId(id, gpu.busId);
  const found = gpus.filter((gpu) => ids.some((id) => named(gpu, id.trim())));
  // One wrong name fails the whole command.
  return ids.every((id) => gpus.some((gpu) => named(gpu, id.trim()))) ? found : [];
}

function isBusId(id: string, busId: string): boolean {
  const given = id.toUpperCase();
  return given.includes(":") && (busId.endsWith(`0${given}`) || busId.endsWith(`:${given}`) || busId === given);
}
