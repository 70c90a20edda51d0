import type { Smi, SmiResult } from "./runner.ts";

/**
 * `smi` with one question asked already: who asks the same first, gets that answer, under its own signal. Disposing cuts the run that is not
 * over yet.
 */
export function askAhead(smi: Smi, args: readonly string[]): Smi & Disposable {
  const cut = new AbortController();
  let answer: Promise<SmiResult> | undefined = smi.run(args, { signal: cut.signal });
  return {
    ...smi,
    run(asked, options = {}) {
      if (answer === undefined || asked.join(" ") !== args.join(" ")) return smi.run(asked, options);
      const { signal } = options;
      const taken = answer;
      answer = undefined;
      signal?.addEventListener("abort", () => cut.abort(), { once: true });
      if (signal?.aborted) cut.abort();
      return taken;
    },
    [Symbol.dispose]: () => cut.abort(),
  };
}
