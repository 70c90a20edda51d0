import type { Command } from "commander";
import type { WorkloadWithEvents } from "../coordinator/client.ts";
import { whyNotJson } from "../protocol/json-text.ts";
import { asking, type ClientOptions, clientFor, say } from "./coordinator-asking.ts";
import { command, print, printJson, UsageError, wholeNumber } from "./outcome.ts";

interface SubmitOptions extends ClientOptions {
  file?: string;
  id?: string;
  gpus?: string;
  minVram?: string;
  precision?: string[];
  minComputeCapability?: string;
  env?: string[];
  secretEnv?: string[];
  port?: string[];
  memory?: string;
  cpus?: string;
  priority?: string;
  requeue?: true;
  wait?: true;
}

export function registerSubmit(coordinator: Command): void {
  asking(coordinator.command("submit"))
    .description("submit a workload: gpunode coordinator submit IMAGE --gpus 1 -- COMMAND…")
    .argument("[image]")
    .argument("[command...]")
    .option("--file <file>", 'a workload as JSON instead; "-" reads it from stdin')
    .option("--id <id>", "its id; one is made otherwise")
    .option("--gpus <count>", "number of GPUs")
    .option("--min-vram <MiB>", "VRAM of each")
    .option("--precision <name>", "its tensor cores multiply this (fp8, bf16 …); may be repeated", collect)
    .option("--min-compute-capability <major.minor>", "e.g. 8.0")
    .option("--env <name=value>", "environment variable; may be repeated", collect)
    .option("--secret-env <name>", "like --env, taken from the variable here and kept secret; may be repeated", collect)
    .option("--port <port>", "container port to publish; may be repeated", collect)
    .option("--memory <MiB>", "memory limit")
    .option("--cpus <count>", "CPU limit")
    .option("--priority <0-1000>", "who goes first, and may take GPUs from lower ones that are preemptible")
    .option("--requeue", "when it is preempted, run it again as soon as there is room, with the same caches")
    .option("--wait", "show what happens until it ends; exit code 0 only if it succeeded")
    .action(command(submit));
}

async function submit(image: string | undefined, command: string[], options: SubmitOptions): Promise<void> {
  const client = await clientFor(options);
  const workload = await client.submit(await submissionOf(image, command, options));
  if (options.wait !== true) {
    const where = workload.node === undefined ? `waits: ${workload.message}` : `goes to ${workload.nodeName}`;
    return say(options, workload, `${workload.id} ${where}`);
  }
  const { eventInWords, remark } = await import("../coordinator/tables.ts");
  let seen = 0;
  let lastLine = "";
  const onChange = (view: WorkloadWithEvents) => {
    if (options.json === true) return;
    for (const event of view.events.filter(({ position }) => position > seen)) {
      seen = event.position;
      print(`${eventInWords(event, process.stdout)}\n`);
    }
    const line = `${view.id} is ${view.state} ${view.endedAt === undefined ? remark(view) : ""}`.trim();
    if (line !== lastLine) print(`${line}\n`);
    lastLine = line;
  };
  const ended = await client.waitForEnd(workload.id, {
    intervalMs: 300,
    signal: new AbortController().signal,
    onChange,
  });
  if (options.json === true) printJson(ended);
  process.exitCode = ended.state === "succeeded" ? 0 : 1;
}

async function submissionOf(
  image: string | undefined,
  command: string[],
  options: SubmitOptions,
): Promise<Record<string, unknown>> {
  if (options.file !== undefined) {
    if (image !== undefined) throw new UsageError("give either --file or an image, not both");
    return { ...(await readSpec(options)), ...requeueOf(options) };
  }
  if (image === undefined) throw new UsageError("name an image, or give a workload with --file");
  const { gpus, minVram, precision, minComputeCapability, memory, cpus, priority } = options;
  const request = {
    count: gpus === undefined ? 0 : wholeNumber("--gpus", gpus),
    ...(minVram !== undefined && { minVramMiB: wholeNumber("--min-vram", minVram) }),
    ...(precision !== undefined && { precisions: precision }),
    ...(minComputeCapability !== undefined && { minComputeCapability }),
  };
  if (gpus === undefined && Object.keys(request).length > 1) request.count = 1;
  return {
    image,
    ...(options.id !== undefined && { id: options.id }),
    ...requeueOf(options),
    ...(command.length > 0 && { command }),
    ...(priority !== undefined && { priority: wholeNumber("--priority", priority) }),
    gpus: request,
    resources: {
      ...(memory !== undefined && { memoryMiB: wholeNumber("--memory", memory) }),
      ...(cpus !== undefined && { cpus: number("--cpus", cpus) }),
    },
    env: Object.fromEntries((options.env ?? []).map(pair)),
    secretEnv: Object.fromEntries((options.secretEnv ?? []).map(fromEnvironment)),
    ports: (options.port ?? []).map((port) => ({ container: wholeNumber("--port", port) })),
  };
}

function requeueOf({ requeue }: SubmitOptions): { onPreempt?: "requeue" } {
  return requeue === true ? { onPreempt: "requeue" } : {};
}

async function readSpec(options: SubmitOptions): Promise<Record<string, unknown>> {
  const { file = "-" } = options;
  const { text: readStream } = await import("node:stream/consumers");
  const { readFile } = await import("node:fs/promises");
  const text = file === "-" ? await readStream(process.stdin) : await readFile(file, "utf8");
  let spec: unknown;
  try {
    spec = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} is not JSON: ${whyNotJson(error)}`);
  }
  if (typeof spec !== "object" || spec === null || Array.isArray(spec)) throw new Error(`${file} is no JSON object`);
  return { ...spec, ...(options.id !== undefined && { id: options.id }) };
}

function number(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new UsageError(`${flag} ${text}: expected a number`);
  return value;
}

/** An option that may be given several times. It takes one value each, so that it never swallows the image. */
function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function pair(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new UsageError(`--env ${text}: expected NAME=VALUE`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function fromEnvironment(name: string): [string, string] {
  // Who gave NAME=VALUE, as with --env, does not want to see the value again.
  const at = name.indexOf("=");
  if (at >= 0) {
    throw new UsageError(
      `--secret-env ${name.slice(0, at)}=…: give the name alone; the value is taken from the variable here, so that it stands in no process list`,
    );
  }
  const value = process.env[name];
  if (value === undefined) throw new UsageError(`--secret-env ${name}: there is no such variable here`);
  return [name, value];
}
