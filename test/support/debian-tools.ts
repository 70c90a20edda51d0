import { inject } from "vitest";
import { findOrUnpack, findProgram, type Programs, TestbedUnavailableError } from "../../src/demo/debian-packages.ts";
import { PACKAGES_DIR } from "./packages-dir.ts";

/**
 * A program of Debian's, where this machine has it or it can be fetched; undefined where not, and in a run that fetches nothing
 * (`GPUNODE_TEST_ENGINE=off`).
 */
export async function debianTool(program: string): Promise<Programs | undefined> {
  const path = await findProgram(program);
  if (path !== undefined) return { paths: { [program]: path }, env: {} };
  if (inject("testbed").reason === "GPUNODE_TEST_ENGINE=off") return undefined;
  try {
    return await findOrUnpack({ [program]: program }, { dir: PACKAGES_DIR, log: (line) => console.log(line) });
  } catch (error) {
    if (error instanceof TestbedUnavailableError) return undefined;
    throw error;
  }
}
