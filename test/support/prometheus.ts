import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";

/** Unpacked with the testbed's other packages (test/support/global-setup.ts). */
const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");

interface Found {
  promtool: string;
  prometheus: string;
}

const found: Found | string = await find();

/** Debian's Prometheus; undefined where it cannot be had. */
const programs = typeof found === "string" ? undefined : found;

/** For `describe.runIf`. */
export const havePrometheus = programs !== undefined;

/** For the name of what is skipped without it. */
export const whyNoPrometheus = typeof found === "string" ? ` (no Prometheus: ${found})` : "";

async function find(): Promise<Found | string> {
  if (process.env.GPUNODE_TEST_ENGINE === "off") return "GPUNODE_TEST_ENGINE=off";
  try {
    const wanted = { promtool: "prometheus", prometheus: "prometheus" };
    const { paths } = await findOrUnpack(wanted, { dir: PACKAGES_DIR, log: (line) => console.log(line) });
    return { promtool: paths.promtool ?? "", prometheus: paths.prometheus ?? "" };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Runs promtool; resolves with its exit code and all it said. */
export async function promtool(args: readonly string[], input = ""): Promise<{ code: number | null; said: string }> {
  const child = spawn(programs?.promtool ?? "", args, { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  const keep = (chunk: Buffer) => {
    said += chunk.toString();
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return { code, said };
}

/** A series as the query API answers it. */
export interface QueryResult {
  metric: Record<string, string>;
  value: [at: number, value: string];
}

/** A real Prometheus that scrapes as the configuration says, in a folder of its own. */
export class Prometheus implements AsyncDisposable {
  readonly #dir = mkdtempSync(join(tmpdir(), "gpunode-prometheus-"));
  readonly #process: ReturnType<typeof spawn>;
  readonly #url: string;
  #said = "";

  static async start(configuration: string): Promise<Prometheus> {
    const prometheus = new Prometheus(configuration, await freePort());
    await prometheus.#ready();
    return prometheus;
  }

  private constructor(configuration: string, port: number) {
    const file = join(this.#dir, "prometheus.yml");
    writeFileSync(file, configuration);
    this.#url = `http://127.0.0.1:${port}`;
    const flags = [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(this.#dir, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=warn",
    ];
    this.#process = spawn(programs?.prometheus ?? "", flags, { cwd: this.#dir, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr])
      stream?.on("data", (chunk: Buffer) => {
        this.#said += chunk.toString();
      });
  }

  /** What it said that is no matter of course. */
  get said(): string {
    return this.#said;
  }

  /** The value of an expression now. Rejects where it is none. */
  async query(expression: string): Promise<QueryResult[]> {
    const answer = await this.#get(`/api/v1/query?query=${encodeURIComponent(expression)}`);
    if (answer.status !== "success") throw new Error(`${expression}: ${JSON.stringify(answer)}`);
    return (answer.data as { result: QueryResult[] }).result;
  }

  /** Its rules with how evaluating them went. */
  async rules(): Promise<{ name: string; health: string; lastError?: string }[]> {
    const { data } = await this.#get("/api/v1/rules");
    return (data as { groups: { rules: { name: string; health: string }[] }[] }).groups.flatMap(({ rules }) => rules);
  }

  async #get(path: string): Promise<{ status: string; data: unknown }> {
    return (await (await fetch(this.#url + path)).json()) as { status: string; data: unknown };
  }

  async #ready(): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      const isReady = await fetch(`${this.#url}/-/ready`).then(
        ({ ok }) => ok,
        () => false,
      );
      if (isReady) return;
      if (tries > 300 || this.#process.exitCode !== null) {
        await this[Symbol.asyncDispose]();
        throw new Error(`Prometheus did not start: ${this.#said}`);
      }
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  /** Ends it; it is gone then, and its folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#process;
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}
