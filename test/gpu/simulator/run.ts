import { Writable } from "node:stream";
import { runSimulator } from "../../../src/gpu/simulator/main.ts";

export interface Answer {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

function collector(): { readonly stream: Writable; text(): string } {
  const chunks: Buffer[] = [];
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  return { stream, text: () => Buffer.concat(chunks).toString("utf8") };
}

/** Runs one command line of the simulator inside this process. `scenario` is a preset's name or a scenario. */
export async function simulate(
  scenario: string | object,
  argv: readonly string[],
  { env = {}, signal }: { readonly env?: Readonly<Record<string, string>>; readonly signal?: AbortSignal } = {},
): Promise<Answer> {
  const [stdout, stderr] = [collector(), collector()];
  const exitCode = await runSimulator(
    argv,
    { GPUNODE_SIM_SCENARIO: typeof scenario === "string" ? scenario : JSON.stringify(scenario), ...env },
    { stdout: stdout.stream, stderr: stderr.stream, ...(signal && { signal }) },
  );
  return { stdout: stdout.text(), stderr: stderr.text(), exitCode };
}

/** Paths of the elements inside each `<gpu>` in document order, each path once, for the GPU at `index`. */
export function elementPaths(xml: string, index = 0): string[] {
  // Some recordings went through a formatter that closes empty elements at once.
  const whole = xml.replace(/<(\w+) \/>/g, "<$1></$1>");
  const gpus = [...whole.matchAll(/<gpu id=[^>]*>([\s\S]*?)\n\s*<\/gpu>/g)];
  const open: string[] = [];
  const paths = new Set<string>();
  for (const [, close, tag = ""] of (gpus[index]?.[1] ?? "").matchAll(/<(\/?)(\w+)>/g)) {
    if (close === "/") open.pop();
    else {
      open.push(tag);
      paths.add(open.join("/"));
    }
  }
  return [...paths];
}

/** Text of every element of the GPU at `index`, by path; the last one where a path repeats. */
export function elementTexts(xml: string, index = 0): Map<string, string> {
  const body = [...xml.matchAll(/<gpu id=[^>]*>([\s\S]*?)\n\s*<\/gpu>/g)][index]?.[1] ?? "";
  const open: string[] = [];
  const texts = new Map<string, string>();
  for (const [, close, tag = "", text = ""] of body.matchAll(/<(\/?)(\w+)>([^<]*)/g)) {
    if (close === "/") open.pop();
    else {
      open.push(tag);
      texts.set(open.join("/"), text.trim());
    }
  }
  return texts;
}
