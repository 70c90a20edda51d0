import { useRef, useState } from "preact/hooks";

const COPIED_MS = 2_000;

/** A command line to copy: the page itself takes no orders. */
export function Command({ text }: { text: string }) {
  const [isCopied, setCopied] = useState(false);
  const code = useRef<HTMLElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), COPIED_MS);
    } catch {
      // Without the clipboard (a page that came not from localhost) it is marked, to be copied by hand.
      if (code.current !== null) getSelection()?.selectAllChildren(code.current);
    }
  };
  return (
    <span class="command">
      <code ref={code}>{text}</code>
      <button type="button" onClick={() => void copy()} aria-label={`Copy ${text}`}>
        {isCopied ? "copied" : "copy"}
      </button>
    </span>
  );
}

/** What acts, and what it does. */
export function Commands({ isHeld }: { isHeld: boolean }) {
  const all: [string, string][] = [
    ["gpunode reclaim --for 2h", "have all GPUs back for two hours; what runs is told, saves its work, and goes"],
    ["gpunode resume", isHeld ? "lend again what is held back now" : "lend again what was taken back"],
    ["gpunode drain", "give back what runs and take nothing new, until resume"],
    ["gpunode logs ID -f", "follow what a workload writes"],
  ];
  return (
    <section class="card" aria-labelledby="commands">
      <h2 id="commands">To act</h2>
      <p class="soft">This page only shows. On the machine, or through ssh:</p>
      <dl class="commands">
        {all.map(([text, does]) => (
          <div key={text}>
            <dt>
              <Command text={text} />
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
