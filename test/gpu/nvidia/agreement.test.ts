import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as z from "zod";
import { inventoryOf } from "../../../src/gpu/nvidia/inventory.ts";
import { readSmiXml } from "../../../src/gpu/nvidia/xml.ts";
import { fixture, haveFixtures } from "../../support/fixtures.ts";
import { documents } from "./documents.ts";

type Reader = (done: (error: unknown, data: unknown) => void) => void;
const nodeNvidiaSmi = createRequire(import.meta.url)("node-nvidia-smi") as Reader;

/** What another reader makes of one element or several of a name. */
const several = <T extends z.ZodType>(item: T) =>
  z.preprocess((value) => (value === undefined ? [] : Array.isArray(value) ? value : [value]), z.array(item));
const Text = z.union([z.string(), z.object({}).transform(() => "")]);
const Theirs = z.object({
  nvidia_smi_log: z.object({
    driver_version: z.string().optional(),
    gpu: several(
      z.object({
        product_name: z.string().optional(),
        uuid: z.string().optional(),
        fb_memory_usage: z.object({ total: z.string() }).optional(),
        processes: z
          .union([z.string(), z.object({ process_info: several(z.object({ pid: z.string(), process_name: Text })) })])
          .optional(),
      }),
    ),
  }),
});

/** node-nvidia-smi runs "nvidia-smi -q -x" from PATH: here one that prints a file. */
describe.runIf(haveFixtures)("node-nvidia-smi reads the same", () => {
  let folder = "";
  const path = process.env.PATH ?? "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "gpunode-agree-"));
    writeFileSync(join(folder, "nvidia-smi"), `#!/bin/sh\ncat '${folder}/document'\n`);
    chmodSync(join(folder, "nvidia-smi"), 0o755);
    process.env.PATH = `${folder}:${path}`;
  });
  afterAll(() => {
    process.env.PATH = path;
    rmSync(folder, { recursive: true, force: true });
  });

  // A raw control character in a process name is no XML to it.
  const unreadable = /hostile-process-name/;
  it.each(documents.filter((file) => !unreadable.test(file)))("%s", async (file) => {
    writeFileSync(join(folder, "document"), fixture(file));
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    nodeNvidiaSmi((error, data) => (error ? reject(error) : resolve(data)));
    const { driver_version, gpu: theirs } = Theirs.parse(await promise).nvidia_smi_log;
    const document = readSmiXml(fixture(file));
    const ours = inventoryOf(document, { capabilities: new Map(), topology: "", listing: "" });
    expect(document.driverVersion).toBe(driver_version);
    expect(document.gpus.map(({ values }) => values.get("uuid"))).toEqual(theirs.map(({ uuid }) => uuid));
    for (const gpu of ours.gpus) {
      const other = theirs.find(({ uuid }) => uuid === gpu.uuid);
      expect(gpu.name).toBe(other?.product_name);
      const total = Number.parseInt(other?.fb_memory_usage?.total ?? "", 10);
      expect(gpu.vramMiB).toBe(Number.isNaN(total) ? undefined : total);
      const listed = typeof other?.processes === "object" ? other.processes.process_info : [];
      expect(ours.processes.get(gpu.uuid)?.map(({ pid, name }) => [pid, name])).toEqual(
        listed.map(({ pid, process_name }) => [Number(pid), process_name]),
      );
    }
  });
});
