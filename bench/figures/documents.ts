import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSmiXml } from "../../src/gpu/nvidia/xml.ts";
import { asDaemon, measuredAsDaemon } from "../lib/as-daemon.ts";
import { grownToB200 } from "../lib/document.ts";
import { alternating, type Bench } from "../lib/figure.ts";
import { simulated } from "../lib/smi.ts";

const ROUNDS = 9;
/** Each run reads so often: one read is too short for a clock. */
const READS = 10;

const require = createRequire(import.meta.url);
const { parseString } = createRequire(require.resolve("node-nvidia-smi"))("xml2js") as {
  parseString(text: string, options: object, done: (error: unknown, tree: unknown) => void): void;
};
/** Those of node-nvidia-smi. */
const xml2jsOptions = { explicitArray: false, trim: true };

/** Reading `nvidia-smi -q -x` of eight GPUs beside what node-nvidia-smi does. */
export const documents: Bench = {
  key: "documents",
  figures: ["reading nvidia-smi -q -x, 8 × H100", "reading nvidia-smi -q -x, 8 × the size of a B200"],
  quick: true,
  async run({ simulator }) {
    const document = simulated(simulator, "-q", "-x");
    const b200 = grownToB200(document);
    if (readSmiXml(b200).gpus.length !== 8) throw new Error("the grown document is no document of 8 GPUs");
    return [
      await reading(this.figures[0] ?? "", document),
      { ...(await reading(this.figures[1] ?? "", b200)), reach: { ratioAtMost: 0.4 } },
    ];
  },
};

async function reading(figure: string, text: string) {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  try {
    const path = join(folder, "document.xml");
    writeFileSync(path, text);
    const rounds = await alternating(
      { rounds: ROUNDS },
      () => asDaemon(import.meta.url, "read", path),
      () => asDaemon(import.meta.url, "readByXml2js", path),
    );
    const note = "both under the daemon's V8 flags; clock tables are left unread";
    return { figure, unit: "ms", baseline: "xml2js, as node-nvidia-smi uses it", rounds, note };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Once warm. */
function read(path: string): number {
  const text = readFileSync(path, "utf8");
  each(() => readSmiXml(text));
  return each(() => readSmiXml(text));
}

function readByXml2js(path: string): number {
  const text = readFileSync(path, "utf8");
  const once = () =>
    parseString(text, xml2jsOptions, (error) => {
      if (error) throw error;
    });
  each(once);
  return each(once);
}

function each(work: () => unknown): number {
  const began = performance.now();
  for (let done = 0; done < READS; done += 1) work();
  return (performance.now() - began) / READS;
}

await measuredAsDaemon(import.meta.url, { read, readByXml2js });
