import type { Engine } from "../workload/needs.ts";

/** What isolation needs of the machine besides the packet filter: the doors that `engine/` fills. */

/** A bridge network as it is asked for. */
export interface NetworkSpec {
  name: string;
  /** Name of its bridge on this machine, at most 15 characters; no two networks have the same. */
  bridge: string;
  labels: Record<string, string>;
  /** With IPv6 where the engine gives out addresses by itself (Docker 27 and newer), or on this subnet with any engine. */
  ipv6: boolean | string;
  /** Largest packet in bytes; the engine's own (1,500 unless its owner set another) where absent. */
  mtu?: number;
}

/** A network as the engine has it. */
export interface NetworkState {
  id: string;
  name: string;
  /** Name of its bridge. */
  bridge: string;
  /** This machine's addresses on its bridge. */
  gateways: string[];
  /** Addresses of the containers on it, by container id. */
  addresses: Record<string, string[]>;
}

/**
 * The networks of this node. Every method throws `GpunodeError` with `engine_unavailable` where the engine does not answer, and touches
 * only networks that carry the node's label.
 */
export interface Networks {
  /** Creates, or finds the one of that name if it is ours and on that bridge. Returns its id. Throws `internal` with the engine's words. */
  create(spec: NetworkSpec): Promise<string>;
  /** undefined where there is none of ours by that id. */
  inspect(id: string): Promise<NetworkState | undefined>;
  /** Removes it; false where containers are still on it. One that is gone is no error. */
  remove(id: string): Promise<boolean>;
  list(): Promise<{ id: string; name: string }[]>;
}

/** The engine as the probe uses it: under a label of its own, so that nobody takes its containers for workloads. */
export interface ProbeEngine extends Pick<Engine, "create" | "start" | "remove" | "list"> {
  readonly networks: Networks;
  readonly nodeId: string;
  /** Id of the image with this label, undefined where there is none. */
  findImage(label: string): Promise<string | undefined>;
  /** Makes an image of a root file system. Returns its id. Throws `insufficient_disk`, `internal`. */
  importImage(
    tar: NodeJS.ReadableStream,
    options: { name: string; label: string; signal: AbortSignal },
  ): Promise<string>;
}

/** The part of a pino logger this room uses: fields first, then the sentence. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
