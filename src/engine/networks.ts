import type { NetworkSpec, NetworkState, Networks } from "../isolation/needs.ts";
import { GpunodeError } from "../protocol/errors.ts";
import { CreateNetworkAnswer, NetworkAnswer, NetworkListAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer } from "./client.ts";
import { LABEL_NODE } from "./container.ts";
import { statusOf } from "./errors.ts";

/** A bridge, its firewall rules and a subnet: tenths of a second, seconds where many containers start at once. */
const NETWORK_MS = 60_000;
/** The driver's option for the name of its device. */
const BRIDGE = "com.docker.network.bridge.name";

/**
 * The bridge networks of this node. What changes or removes one first makes sure that it carries our label; the owner's other networks
 * are never touched. `givesIpv6` tells whether the engine has IPv6 subnets of its own to give.
 */
export function ownNetworks(client: EngineClient, nodeId: string, givesIpv6: () => Promise<boolean>): Networks {
  const { docker } = client;

  async function look(id: string): Promise<NetworkState | undefined> {
    try {
      const doing = `look up network ${short(id)}`;
      const path = `/networks/${encodeURIComponent(id)}`;
      const answer = await client.ask((abortSignal) => client.get(path, { abortSignal }), { doing });
      const network = parseAnswer(NetworkAnswer, answer, "a network");
      return network.Labels[LABEL_NODE] === nodeId ? networkState(network) : undefined;
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  async function list(): Promise<{ id: string; name: string }[]> {
    const query = { filters: JSON.stringify({ label: [`${LABEL_NODE}=${nodeId}`] }) };
    const answer = await client.ask((abortSignal) => client.get("/networks", { query, abortSignal }), {
      doing: "list the networks",
    });
    return parseAnswer(NetworkListAnswer, answer, "networks").map(({ Id, Name }) => ({ id: Id, name: Name }));
  }

  async function create(spec: NetworkSpec): Promise<string> {
    if (spec.labels[LABEL_NODE] !== nodeId) throw new Error(`a network spec without ${LABEL_NODE}=${nodeId}`);
    const { ipv6 } = spec;
    const subnets = typeof ipv6 === "string" ? [{ Subnet: ipv6 }] : [];
    const request = {
      Name: spec.name,
      Labels: spec.labels,
      Driver: "bridge",
      // Engines before API 1.44 allow several networks of one name unless told so.
      CheckDuplicate: true,
      Attachable: false,
      EnableIPv6: typeof ipv6 === "string" || (ipv6 && (await givesIpv6())),
      ...(subnets.length > 0 && { IPAM: { Config: subnets } }),
      Options: {
        [BRIDGE]: spec.bridge,
        // There is one container on it; should there ever be two, they do not see each other.
        "com.docker.network.bridge.enable_icc": "false",
        ...(spec.mtu !== undefined && { "com.docker.network.driver.mtu": String(spec.mtu) }),
      },
    };
    try {
      const answer = await client.ask((abortSignal) => docker.createNetwork({ ...request, abortSignal }), {
        doing: `create network ${spec.name}`,
        timeoutMs: NETWORK_MS,
      });
      return parseAnswer(CreateNetworkAnswer, answer, "a new network").id;
    } catch (error) {
      // It may be there from before a crash: the engine then refuses the name, or the bridge, as taken.
      const there = statusOf(error) === undefined ? undefined : (await list()).find(({ name }) => name === spec.name);
      const bridge = there && (await look(there.id))?.bridge;
      if (there === undefined || bridge === undefined) throw error;
      if (bridge === spec.bridge) return there.id;
      throw new GpunodeError(
        "internal",
        `the network ${spec.name} is on the bridge ${bridge} instead of ${spec.bridge}: remove it (docker network rm ${spec.name})`,
      );
    }
  }

  async function remove(id: string): Promise<boolean> {
    if ((await look(id)) === undefined) return true;
    try {
      await client.ask((abortSignal) => docker.getNetwork(id).remove({ abortSignal }), {
        doing: `remove network ${short(id)}`,
        timeoutMs: NETWORK_MS,
      });
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return true;
      // 403: it has active endpoints.
      if (statusOf(error) === 403) return false;
      throw error;
    }
  }

  return { create, inspect: look, remove, list };
}

function networkState({ Id, Name, Options, IPAM, Containers }: NetworkAnswer): NetworkState {
  const addresses = Object.entries(Containers).map(
    ([id, { IPv4Address, IPv6Address }]) =>
      [id, [IPv4Address, IPv6Address].map(bare).filter((at) => at !== "")] as const,
  );
  return {
    id: Id,
    name: Name,
    bridge: Options[BRIDGE] ?? "",
    gateways: IPAM.Config.map(({ Gateway }) => bare(Gateway)).filter((gateway) => gateway !== ""),
    addresses: Object.fromEntries(addresses),
  };
}

/** Without the length of the prefix. */
function bare(address: string): string {
  return address.split("/")[0] ?? "";
}

function short(id: string): string {
  return /^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id;
}
