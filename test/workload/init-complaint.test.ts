import { expect, it } from "vitest";
import { initComplaint } from "../../src/workload/init-complaint.ts";
import type { ContainerState } from "../../src/workload/needs.ts";

const ended = (exitCode: number): ContainerState => ({
  id: "c1",
  name: "c1",
  labels: {},
  status: "exited",
  pid: 0,
  exitCode,
  oomKilled: false,
  error: "",
  gpus: [],
});

/** An engine whose container wrote this. */
const wrote = (text: string, stream: "stdout" | "stderr" = "stderr") => ({
  async *logs() {
    await Promise.resolve();
    yield { stream, data: Buffer.from(text) };
  },
});
const { signal } = new AbortController();
const TINI = "[FATAL tini (7)] exec /no/such failed: No such file or directory\n";

it.each([
  [127, `one\n${TINI}`, "command_not_found", "/no/such: No such file or directory"],
  [
    126,
    "[FATAL tini (8)] exec /etc/passwd failed: Permission denied\n",
    "start_failed",
    "/etc/passwd: Permission denied",
  ],
])("exit code %d with tini's words is %s", async (code, text, reason, words) => {
  const found = await initComplaint(ended(code), wrote(text), signal);
  expect(found?.reason).toBe(reason);
  expect(found?.message).toContain(`(${words})`);
});

it.each([
  ["another exit code", ended(1), wrote(TINI)],
  ["a shell that did not find something", ended(127), wrote("sh: nosuch: not found\n")],
  ["the same words on stdout", ended(127), wrote(TINI, "stdout")],
  ["more than a complaint", ended(127), wrote(`${TINI}${"x".repeat(10_000)}`)],
  ["a container that runs", { ...ended(127), status: "running" as const }, wrote(TINI)],
  ["no container", undefined, wrote(TINI)],
])("is none: %s", async (_, container, engine) => {
  expect(await initComplaint(container, engine, signal)).toBeUndefined();
});

it("output that cannot be had is no complaint", async () => {
  const engine = {
    // biome-ignore lint/correctness/useYield: it fails before it has anything.
    async *logs() {
      await Promise.reject(new Error("gone"));
    },
  };
  expect(await initComplaint(ended(127), engine, signal)).toBeUndefined();
});
