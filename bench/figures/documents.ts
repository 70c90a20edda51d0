import { createRequire } from "node:module";
import { readSmiXml } from "../../src/gpu/nvidia/xml.ts";
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
      {
        ...(await reading(this.figures[1] ?? "", b200)),
        reach: { ratioAtMost: 0.4 },
        note: "clock tables are left unread",
      },
    ];
  },
};

async function reading(figure: string, text: string) {
  const theirs = () =>
    parseString(text, xml2jsOptions, (error) => {
      if (error) throw error;
    });
  const rounds = await alternating(
    { rounds: ROUNDS },
    () => each(() => readSmiXml(text)),
    () => each(theirs),
  );
  return { figure, unit: "ms", baseline: "xml2js, as node-nvidia-smi uses it", rounds };
}

function each(read: () => unknown): number {
  const began = performance.now();
  for (let done = 0; done < READS; done += 1) read();
  return (performance.now() - began) / READS;
}
