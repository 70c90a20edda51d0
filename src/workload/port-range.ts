import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { GpunodeError } from "../protocol/errors.ts";
import type { PortBinding } from "../protocol/workload.ts";
import type { Policy } from "./admit.ts";
import type { WorkloadRecord } from "./record.ts";

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
