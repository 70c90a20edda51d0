import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { GpunodeError } from "../protocol/errors.ts";
import type { PortBinding } from "../protocol/workload.ts";
import type { Policy } from "./admit.ts";
import { recordKey, type WorkloadRecord } from "./record.ts";

/** Which host ports have been given to whom: what was given counts before it is on the record. */
export class PortBook {
  /** One record's ports are looked for at a time. */
  #picking: Promise<unknown> = Promise.resolve();
  readonly #given = new Map<string, readonly number[]>();

  /** Ports for a record, none of them held by or given to one of `others`. Throws `policy_denied` where the range is used up. */
  async pick(record: WorkloadRecord, policy: Policy, others: () => readonly WorkloadRecord[]): Promise<PortBinding[]> {
    const picked = this.#picking.then(async () => {
      const reserved = others().flatMap((other) => [
        ...other.ports.map(({ host }) => host),
        ...(this.#given.get(recordKey(other)) ?? []),
      ]);
      const ports = await pickPorts(record, policy, new Set(reserved));
      this.#given.set(
        recordKey(record),
        ports.map(({ host }) => host),
      );
      return ports;
    });
    this.#picking = picked.catch(() => undefined);
    return await picked;
  }

  /** The record is no more. */
  forget(key: string): void {
    this.#given.delete(key);
  }
}

/**
 * Host ports for a record, lowest free first: in the provider's range, not `reserved` by another workload, and with no
 * listener of the host on them. Throws `policy_denied` where the range is used up.
 */
export async function pickPorts(
  record: WorkloadRecord,
  policy: Policy,
  reserved: ReadonlySet<number>,
): Promise<PortBinding[]> {
  const { from, to } = policy.hostPorts;
  const picked: PortBinding[] = [];
  let candidate = from;
  for (const { container, protocol } of record.spec.ports) {
    while (candidate <= to && (reserved.has(candidate) || !(await isFree(candidate, protocol, policy.hostIp))))
      candidate += 1;
    if (candidate > to) {
      throw new GpunodeError("policy_denied", `no free port is left in policy.host_ports ${from}-${to}`);
    }
    picked.push({ container, host: candidate, protocol });
    candidate += 1;
  }
  return picked;
}

function isFree(port: number, protocol: "tcp" | "udp", address: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    if (protocol === "tcp") {
      const server = createServer();
      server.once("error", (error) => isTaken(error, address, resolve, reject));
      server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(true)));
    } else {
      const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
      socket.once("error", (error) => socket.close(() => isTaken(error, address, resolve, reject)));
      socket.bind({ port, address, exclusive: true }, () => socket.close(() => resolve(true)));
    }
  });
}

/** What keeps a port from being listened on counts as taken, but an address that is not this machine's is the rule's fault. */
function isTaken(
  error: NodeJS.ErrnoException,
  address: string,
  resolve: (free: boolean) => void,
  reject: (error: GpunodeError) => void,
): void {
  if (error.code !== "EADDRNOTAVAIL") resolve(false);
  else reject(new GpunodeError("policy_denied", `policy.host_ip ${address} is not an address of this machine`));
}
