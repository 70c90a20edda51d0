import { randomBytes } from "node:crypto";
import type { Config } from "../../config/config.ts";
import { createDockerEngine } from "../../engine/docker.ts";
import { liveBridges } from "../../isolation/bridge.ts";
import { startIsolation } from "../../isolation/isolation.ts";
import { nftFirewall } from "../../isolation/nft.ts";
import { exceptionsOf } from "../../isolation/rules.ts";
import { GpunodeError } from "../../protocol/errors.ts";
import type { TrialFacts } from "../facts.ts";
import type { Reader } from "./reader.ts";
import { DOCTOR, LABEL_NODE } from "./sight.ts";

/** Two containers and a handful of attempts, of which some must come to nothing. */
const TRIAL_MS = 18_000;

export const firewall: Reader<"firewall"> = {
  limitMs: 1_000,
  read({ machine }) {
    const program = machine.program("nft");
    return program === undefined ? {} : { program };
  },
};

export const trial: Reader<"trial"> = {
  after: ["config", "system", "engine", "daemon", "service", "firewall"],
  limitMs: TRIAL_MS + 5_000,
  async read({ machine, mayStartContainers }, had, signal): Promise<TrialFacts | { missing: string }> {
    const config = had("config")?.config;
    const engine = had("engine");
    if (config === undefined || !config.network.isolateLan) return { missing: "network.isolate_lan is false" };
    const daemon = had("daemon");
    if (daemon?.state === "running") return { missing: "the daemon has tried it" };
    // Two must not hold the same rules: one would take away what the other has set.
    if (daemon?.state !== "away" || had("service")?.unit?.activeState === "active") {
      return { missing: "a daemon runs that does not tell of it here" };
    }
    if (had("firewall")?.program === undefined) return { missing: "nft is not installed" };
    if (had("system")?.isRoot !== true) return { missing: "it takes root: run it with sudo" };
    if (!mayStartContainers) return { missing: "--no-containers was given" };
    if (engine?.about === undefined) return { missing: "the container engine does not answer" };
    // A daemon that was killed has left its work running, and with it the rules: they are not the doctor's to touch.
    if (liveBridges().length > 0) return { missing: "workloads run while the daemon does not: start it, and it tries" };
    const limit = AbortSignal.any([signal, AbortSignal.timeout(TRIAL_MS)]);
    return await tryOnce(machine.at(engine.socket), config, limit);
  },
};

/** As the daemon does at its start; the rules are gone again afterwards. */
async function tryOnce(socketPath: string, { network, policy }: Config, signal: AbortSignal): Promise<TrialFacts> {
  await using docker = createDockerEngine({ socketPath, nodeId: DOCTOR });
  await using probe = createDockerEngine({ socketPath, nodeId: `${DOCTOR}.probe` });
  await using isolation = await startIsolation({
    nodeId: DOCTOR,
    networks: docker.networks,
    probe,
    firewall: nftFirewall(),
    exceptions: exceptionsOf(network.allow),
    ...(policy.runtime !== undefined && { runtime: policy.runtime }),
    live: () => [],
    changed: () => undefined,
    log: SILENT,
  });
  const name = `gpunode-doctor-${randomBytes(4).toString("hex")}`;
  try {
    await isolation.open({ name, labels: { [LABEL_NODE]: DOCTOR } }, signal);
    return {};
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof GpunodeError && error.code === "policy_denied") return { problem: error.message };
    throw error;
  } finally {
    await isolation.close(name);
  }
}

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
