import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createSmi, type Smi } from "../../../src/gpu/nvidia/runner.ts";

/** An nvidia-smi that says what the test has it say, and may change its mind. */
export interface ScriptedSmi extends Disposable {
  readonly smi: Smi;
  /** Sets what it prints for `-q -x` (`xml`), `-L` (`list`), `--help-query-gpu` (`help`), and with each beat of a stream (`rows`). */
  says(what: Partial<Record<"xml" | "list" | "help" | "rows", string>>): void;
  /** Shell commands that print what a stream prints; it says nothing more behind them. */
  streams(body: string): void;
  /** The words of a broken driver with its exit code, for everything; a stream ends. `undefined`: it works again. */
  breaks(failure: { text: string; code: number } | undefined): void;
  /** The command lines so far that contain `part`. */
  calls(part: string): string[];
  /** Pids of what it has running, its own helpers included. */
  running(): number[];
  gone(): Promise<void>;
}

export function scriptedSmi(): ScriptedSmi {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-script-"));
  const path = join(folder, "nvidia-smi");
  const at = (name: string) => join(folder, name);
  writeFileSync(
    path,
    `#!/bin/sh
D='${folder}'
echo "$*" >> $D/calls
broken() { if [ -f $D/broken ]; then cat $D/broken; exit "$(cat $D/code)"; fi; }
broken
case "$*" in
  "-q -x") cat $D/xml ;;
  -L) cat $D/list ;;
  --help-query-gpu) cat $D/help ;;
  *-lms*) if [ -f $D/stream ]; then . $D/stream; exec sleep 1000; fi; while :; do broken; cat $D/rows; sleep 0.1; done ;;
esac
exit 0
`,
  );
  chmodSync(path, 0o755);
  const help = ["index", "uuid", "utilization.gpu", "memory.used", "memory.total"]
    .map((name) => `"${name}"\n`)
    .join("");
  for (const [name, text] of Object.entries({ xml: "", list: "", rows: "", calls: "", help }))
    writeFileSync(at(name), text);
  const running = () =>
    readdirSync("/proc").flatMap((pid) => {
      try {
        const mine = readFileSync(`/proc/${pid}/environ`, "utf8").includes(`GPUNODE_TEST_FOLDER=${folder}\0`);
        const state = /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
        return mine && state !== "Z" && Number(pid) !== process.pid ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
  return {
    smi: createSmi({ path, env: { ...process.env, GPUNODE_TEST_FOLDER: folder } }),
    says(what) {
      for (const [name, text] of Object.entries(what)) writeFileSync(at(name), text);
    },
    streams: (body) => writeFileSync(at("stream"), `${body}\n`),
    breaks(failure) {
      if (failure === undefined) rmSync(at("broken"), { force: true });
      else {
        writeFileSync(at("code"), String(failure.code));
        writeFileSync(at("broken"), failure.text);
      }
    },
    calls: (part) =>
      readFileSync(at("calls"), "utf8")
        .split("\n")
        .filter((line) => line !== "" && line.includes(part)),
    running,
    async gone() {
      for (let tries = 0; running().length > 0; tries += 1) {
        if (tries > 150) throw new Error(`still running: ${running().join(", ")}`);
        await sleep(20);
      }
    },
    [Symbol.dispose]() {
      if (existsSync(folder)) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A `-q -x` document of GPUs by UUID and what each has in use. */
export function documentOf(
  gpus: readonly { uuid: string; usedMiB?: number; more?: string }[],
  driver = "580.65.06",
): string {
  const parts = gpus.map(
    ({ uuid, usedMiB = 0, more = "" }, index) =>
      `<gpu id="00000000:0${index}:00.0"><product_name>NVIDIA L4</product_name><uuid>${uuid}</uuid><fb_memory_usage>` +
      `<total>23034 MiB</total><reserved>300 MiB</reserved><used>${usedMiB} MiB</used></fb_memory_usage>${more}</gpu>`,
  );
  return `<?xml version="1.0" ?><nvidia_smi_log><driver_version>${driver}</driver_version><attached_gpus>${gpus.length}</attached_gpus>${parts.join("")}</nvidia_smi_log>\n`;
}

/** One round of the stream, by the five fields the script's help names. */
export function rowsOf(gpus: readonly { uuid: string; usedMiB?: number }[]): string {
  return gpus.map(({ uuid, usedMiB = 0 }, index) => `${index}, ${uuid}, 7, ${usedMiB}, 23034\n`).join("");
}
