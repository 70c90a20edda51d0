import { hostname } from "node:os";
import { defaulted, type Key, key, mebibytes, optional, percent } from "./key.ts";
import { POLICY_KEYS } from "./keys-policy.ts";
import { SUPPLY_CHAIN_KEYS } from "./keys-supply-chain.ts";
import { TAKING_BACK_KEYS } from "./keys-taking-back.ts";
import * as kinds from "./kinds.ts";
import { systemRunDir, systemStateDir } from "./surroundings.ts";

const LOG_FORMATS = ["auto", "text", "json"] as const;
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

/** Every key there is, in the order of the reference. */
export const KEYS = {
  name: key({
    kind: kinds.text({ maxLength: 255 }),
    description: "What this machine is called where its coordinator lists it.",
    fallback: () => hostname(),
    defaultText: "the host name",
    flag: "--name <name>",
  }),
  labels: key<Readonly<Record<string, string>>>({
    kind: kinds.textTable({ keyLength: 63, valueLength: 255 }),
    description: "Labels the coordinator may select nodes by.",
    fallback: () => ({}),
    defaultText: "{}",
  }),
  state_dir: key({
    kind: kinds.folder(),
    description: "Folder for what must outlive a restart: the node's identity, workload records, the event log.",
    fallback: systemStateDir,
    defaultText: "`/var/lib/gpunode`; without root and without `/etc/gpunode/config.toml`, `~/.local/state/gpunode`",
    flag: "--state-dir <dir>",
  }),
  run_dir: key({
    kind: kinds.folder(),
    description: "Folder for the socket `gpunode.sock` that `gpunode status` and the others talk to.",
    fallback: systemRunDir,
    defaultText: "`/run/gpunode`; without root and without `/etc/gpunode/config.toml`, `$XDG_RUNTIME_DIR/gpunode`",
    flag: "--run-dir <dir>",
  }),
  "coordinator.url": optional({
    kind: kinds.coordinatorUrl(),
    description:
      "The coordinator this machine works for. `https` is read as `wss`. Without it the node runs for itself and shows its GPUs.",
    flag: "--coordinator <url>",
  }),
  "coordinator.join_token": optional({
    kind: kinds.secret(),
    description: "Token that admits this node the first time. Better kept in a file of its own: `join_token_file`.",
  }),
  "coordinator.join_token_file": optional({
    kind: kinds.path(),
    description:
      "File with the join token. It must not be readable by others (mode 0600 or 0640). Once the node has joined, key and file may go.",
    flag: "--join-token-file <file>",
  }),
  "coordinator.ca_file": optional({
    kind: kinds.path(),
    description:
      "PEM file with the authorities the coordinator's certificate is checked against, instead of the usual ones.",
  }),
  "coordinator.cert_file": optional({
    kind: kinds.path(),
    description: "PEM file with a client certificate, where the coordinator asks for one; goes with `key_file`.",
  }),
  "coordinator.key_file": optional({
    kind: kinds.path(),
    description: "PEM file with the key of `cert_file`.",
  }),
  "coordinator.proxy": optional({
    kind: kinds.proxyUrl(),
    description: "HTTP proxy the coordinator is reached through (CONNECT).",
  }),
  "coordinator.insecure": defaulted<boolean>(false, {
    kind: kinds.boolean(),
    description: "Allow `ws://` to another machine. What is sent, secrets included, can then be read on the way.",
    flag: "--insecure",
  }),
  "nvidia.smi": defaulted<string>("nvidia-smi", {
    kind: kinds.text(),
    description: "The nvidia-smi to use: a name looked up in PATH, or an absolute path.",
    flag: "--nvidia-smi <path>",
  }),
  "nvidia.simulated": defaulted<boolean>(false, {
    kind: kinds.boolean(),
    description:
      "The GPUs come from the simulator: containers are told of theirs in `NVIDIA_VISIBLE_DEVICES`, nothing is attached.",
  }),
  "nvidia.kernel_log": defaulted<string>("/dev/kmsg", {
    kind: kinds.path(),
    description: "The kernel's log, where the driver tells of faults (Xid). A file of `dmesg` lines does as well.",
  }),
  "docker.socket": defaulted<string>("/var/run/docker.sock", {
    kind: kinds.path(),
    description: "Socket of the Docker engine.",
    flag: "--docker-socket <path>",
  }),
  "telemetry.interval_ms": defaulted<number>(1000, {
    kind: kinds.integer({ min: 100, max: 5000 }),
    description:
      "Time between two samples of the GPUs, while somebody listens: a coordinator, a workload that runs, `gpunode status`. The coordinator may ask for a longer one.",
  }),
  "telemetry.health_interval_seconds": defaulted<number>(60, {
    kind: kinds.integer({ min: 1, max: 60 }),
    description: "Time between two full readings of the GPUs: their health, their processes, what came or went.",
  }),
  "pressure.vram_elevated_percent": percent(
    95,
    "VRAM in use, of what the driver leaves, that counts as elevated pressure.",
  ),
  "pressure.vram_critical_percent": percent(99, "VRAM in use that counts as critical pressure."),
  "pressure.vram_free_mib": mebibytes(
    2048,
    "While more VRAM than this is free, its pressure is normal, whatever the percentage. Critical takes a quarter of it.",
  ),
  "pressure.memory_elevated_percent": percent(85, "Memory of this machine in use that counts as elevated pressure."),
  "pressure.memory_critical_percent": percent(95, "Memory of this machine in use that counts as critical pressure."),
  "pressure.memory_free_mib": mebibytes(8192, "While more memory than this is free, its pressure is normal."),
  "pressure.memory_stall_percent": percent(
    20,
    "Share of the time in which something waited for memory (PSI, some, 10 s) that counts as elevated pressure.",
  ),
  "pressure.disk_elevated_percent": percent(90, "Disk in use, where images lie, that counts as elevated pressure."),
  "pressure.disk_critical_percent": percent(97, "Disk in use, where images lie, that counts as critical pressure."),
  "pressure.disk_free_mib": mebibytes(51_200, "While more disk than this is free, its pressure is normal."),
  ...TAKING_BACK_KEYS,
  ...POLICY_KEYS,
  ...SUPPLY_CHAIN_KEYS,
  "network.isolate_lan": defaulted<boolean>(true, {
    kind: kinds.boolean(),
    description:
      "Keep workloads off this machine, its networks and each other (docs/security.md). Needs nftables. `false` puts them on Docker's default bridge.",
  }),
  "network.allow": defaulted<readonly string[]>([], {
    kind: kinds.networkExceptions(),
    description:
      'What workloads may reach of your network all the same: addresses or ranges, each with a port and `/tcp` or `/udp` if wanted: `["192.168.1.10:2049/tcp", "10.0.0.0/24", "[fd00::5]:443"]`.',
  }),
  "network.bandwidth_mbit": optional({
    kind: kinds.number({ min: 0.1, max: 400_000 }),
    description: "Megabits per second that each workload may send, and receive. Needs `network.isolate_lan`.",
  }),
  "metrics.listen": key<kinds.ListenAddress | "off">({
    kind: kinds.listenAddress(),
    description:
      'Where the page for a browser and `/metrics` for Prometheus are served; "off" for neither. On an address that other machines reach they are shown `/metrics` and nothing else.',
    fallback: () => ({ host: "127.0.0.1", port: 9835 }),
    defaultText: '`"127.0.0.1:9835"`',
  }),
  "log.level": defaulted<(typeof LOG_LEVELS)[number]>("info", {
    kind: kinds.oneOf(...LOG_LEVELS),
    description: "How much the daemon says.",
    flag: "--log-level <level>",
  }),
  "log.format": defaulted<(typeof LOG_FORMATS)[number]>("auto", {
    kind: kinds.oneOf(...LOG_FORMATS),
    description:
      "How the daemon says it: `text` for a person, `json` with one object a line; `auto` is text at a terminal and in the journal, JSON elsewhere (docs/logs.md).",
    flag: "--log-format <format>",
  }),
};

export type KeyName = keyof typeof KEYS;
/** The value of every key by its name. */
export type Values = { [K in KeyName]: (typeof KEYS)[K] extends Key<infer T> ? T : never };

export const KEY_NAMES = Object.keys(KEYS) as KeyName[];

/** Environment variable of a key: `GPUNODE_POLICY_MAX_WORKLOADS`. */
export function envNameOf(name: KeyName): string {
  return `GPUNODE_${name.replaceAll(".", "_").toUpperCase()}`;
}
