import type { Config } from "../config/config.ts";
import { Link } from "../link/link.ts";
import type { LinkDoors } from "../link/needs.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodeTelemetry } from "./telemetry.ts";

export interface CoordinatorLinkDoors
  extends Pick<LinkDoors, "identity" | "events" | "memory" | "advertisement" | "onCommand" | "log"> {
  config: Config;
  version: string;
  bootId: string;
  supervisor: Supervisor;
  telemetry: NodeTelemetry;
  steady(): number;
  /** Remembers when the coordinator was last heard. */
  saveHeard(): void;
}

/** The link to the coordinator of the configuration; undefined where it names none. */
export function coordinatorLink(doors: CoordinatorLinkDoors): Link | undefined {
  const { config, version, bootId, supervisor, telemetry, steady, saveHeard } = doors;
  const { url, joinToken, caFile, certFile, keyFile, proxy, insecure } = config.coordinator;
  if (url === undefined) return undefined;
  const address = {
    url,
    insecure,
    ...(joinToken !== undefined && { joinToken: joinToken.reveal() }),
    ...(caFile !== undefined && { caFile }),
    ...(certFile !== undefined && { certFile }),
    ...(keyFile !== undefined && { keyFile }),
    ...(proxy !== undefined && { proxy: proxy.reveal() }),
  };
  return new Link(
    { ...address, steady },
    {
      identity: doors.identity,
      events: doors.events,
      memory: doors.memory,
      describeNode: () => ({
        node: { name: config.name, labels: { ...config.labels }, bootId, agentVersion: version },
        workloads: supervisor.records().map(({ id, generation, state }) => ({ id, generation, state })),
      }),
      advertisement: doors.advertisement,
      onWelcome: ({ telemetryIntervalMs }) => telemetry.setSession(telemetryIntervalMs),
      onSync: (workloads) => supervisor.sync(workloads),
      onCommand: doors.onCommand,
      openLogs: ({ workload, follow, tail, since }, until) =>
        supervisor.output.open(workload, {
          follow,
          signal: until,
          ...(tail !== undefined && { tail }),
          ...(since !== undefined && { since }),
        }),
      onSessionEnd: () => {
        telemetry.setSession(undefined);
        saveHeard();
      },
      log: doors.log,
    },
  );
}
