import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askBus, BusError } from "../../src/cli/dbus.ts";
import { busOf, isDriverLoad, readSXid, readXid } from "../../src/gpu/nvidia/xid.ts";
import { ownerOf } from "../../src/host/cgroup.ts";
import { kernelMessages } from "../../src/host/kernel-log.ts";
import {
  parseCpuTicks,
  parseLoadAverage1,
  parseMeminfo,
  parseNetDev,
  parsePressureSome10,
} from "../../src/host/proc.ts";
import { awsNotices } from "../../src/preemption/cloud/aws.ts";
import { azureNotices } from "../../src/preemption/cloud/azure.ts";
import { detectCloud } from "../../src/preemption/cloud/detect.ts";
import { gcpNotices } from "../../src/preemption/cloud/gcp.ts";
import type { Answer, CloudNotices, MetadataClient } from "../../src/preemption/cloud/metadata.ts";
import { HostTelemetry } from "../../src/protocol/agent-frames.ts";
import { recorded } from "../corpus.ts";
import type { Draw } from "../draw.ts";
import { hostileText, mutated, mutatedLines, mutatedText } from "../hostile.ts";
import { ensure, type TargetGroup, target } from "../target.ts";

const XIDS = [
  "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.",
  "NVRM: GPU at PCI:0000:01:00: GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
  "NVRM: Xid (0000:03:00): 62, 0cb5(31ac) 00000000 00000000",
  "NVRM: Xid (PCI:0000:18:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
  "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
  "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.129.03",
];

const ID = "0123456789abcdef".repeat(4);
const CGROUPS = [
  `0::/system.slice/docker-${ID}.scope\n`,
  `12:memory:/docker/${ID}\n1:name=systemd:/docker/${ID}\n0::/\n`,
  `0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-${ID}.scope\n`,
  "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-game.scope\n",
];

const PROC = {
  stat: "cpu  4705 150 1120 16250856 2290 127 456 0 0 0\ncpu0 1200 10 20 30 40 50 60 0 0 0\n",
  loadavg: "0.20 0.18 0.12 1/80 11206\n",
  meminfo: "MemTotal:       32781296 kB\nMemFree:        21016528 kB\nMemAvailable:   29218300 kB\n",
  pressure: "some avg10=1.53 avg60=0.12 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
  netdev:
    "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n" +
    "    lo: 2776770   11307    0    0    0     0          0         0  2776770   11307    0    0    0     0       0          0\n" +
    "  eth0:1215645    2751    0    0    0     0          0         0  1782404    4324    0    0    0   427       0          0\n",
};
type Proc = typeof PROC;

const CLOUD_BODIES = [
  '{"action":"terminate","time":"2026-01-01T00:02:00Z"}',
  '{"noticeTime":"2026-01-01T00:00:00Z"}',
  '{"DocumentIncarnation":2,"Events":[{"EventId":"A","EventType":"Preempt","ResourceType":"VirtualMachine","Resources":["vm"],"EventStatus":"Scheduled","NotBefore":"Thu, 01 Jan 2026 00:05:00 GMT"}]}',
  "TRUE",
  "FALSE",
  "TERMINATE_ON_HOST_MAINTENANCE",
  "NONE",
  "AQAAA-token",
];
const NOW = Date.parse("2026-01-01T00:00:00Z");

/** Answers of a metadata service in the order in which they are asked for, the last one again and again. */
interface CloudSays {
  cloud: "aws" | "azure" | "gcp";
  answers: Answer[];
}

function cloudAnswer(draw: Draw): Answer {
  const body = draw.of(CLOUD_BODIES);
  const isJson = body.startsWith("{");
  return {
    status: draw.of([200, 200, 200, 200, 404, 401, 500, 302, 0]),
    headers: draw.once(5) ? {} : { "metadata-flavor": "Google" },
    body: draw.any(
      () => body,
      () => (isJson ? JSON.stringify(mutated(draw, JSON.parse(body))) : mutatedText(draw, body)),
      () => mutatedText(draw, body, ["9999-12-31T23:59:59Z", '"NotBefore":""', "-000001-01-01T00:00:00Z"]),
    ),
  };
}

function isPrintable(text: string): boolean {
  return [...text].every((char) => char >= " ");
}

async function heeded({ cloud, answers }: CloudSays): Promise<void> {
  let at = 0;
  const client: MetadataClient = {
    get: async () => answers[Math.min(at++, answers.length - 1)] ?? { status: 404, headers: {}, body: "" },
  };
  const notices: CloudNotices = {
    aws: () => awsNotices(client, () => 0),
    azure: () => azureNotices(client),
    gcp: () => gcpNotices(client, () => true),
  }[cloud]();
  const told = await notices.read(NOW, new AbortController().signal).catch((error: Error) => {
    // The documented refusal: a sentence that goes into the log, so it must be one line and not repeat what came.
    ensure(
      error.constructor === Error && error.message.length < 300 && isPrintable(error.message),
      `not a sentence: ${error.stack}`,
    );
    return [];
  });
  for (const { key, at: when, message, work } of told) {
    ensure(key.length < 400 && message.length < 300, "a notice of thousands of characters");
    ensure(!message.includes("Invalid"), `no message: ${message}`);
    ensure(when === undefined || (Number.isFinite(when) && Math.abs(when) <= 8.64e15), `no time: ${when}`);
    ensure(["stop", "stop_in_time", "warn"].includes(work), "no work");
  }
}

/** D-Bus bytes: what a bus says after it let us in. */
interface BusSays {
  hello: string;
  bytes: Buffer;
  cut: number;
}

/** Method returns for serials 1 and 2 with a string each, as systemd answers. */
function busReplies(): Buffer {
  const reply = (serial: number) => {
    const fields = Buffer.from([5, 1, 0x75, 0, serial, 0, 0, 0, 8, 1, 0x67, 0, 1, 0x73, 0, 0]);
    const text = Buffer.from("active");
    const body = Buffer.concat([Buffer.from([text.length, 0, 0, 0]), text, Buffer.from([0])]);
    const head = Buffer.alloc(16);
    head.set([0x6c, 2, 1, 1]);
    head.writeUInt32LE(body.length, 4);
    head.writeUInt32LE(serial, 8);
    head.writeUInt32LE(15, 12);
    return Buffer.concat([head, fields, body]);
  };
  return Buffer.concat([reply(1), reply(2)]);
}

async function openBus(folder: string) {
  let says: BusSays | undefined;
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).once("close", () => sockets.delete(socket));
    socket.once("data", () => {
      const { hello = "", bytes = Buffer.alloc(0), cut = 0 } = says ?? {};
      socket.write(Buffer.concat([Buffer.from(hello), bytes.subarray(0, cut)]));
      setImmediate(() => socket.end(bytes.subarray(cut)));
    });
  });
  const path = join(folder, "bus");
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    async asked(of: BusSays): Promise<void> {
      says = of;
      const call = { destination: "d", path: "/p", interface: "i", member: "m", args: ["x"] };
      try {
        const [answer] = await askBus(path, [call], AbortSignal.timeout(20_000));
        if (answer instanceof BusError) return;
        answer?.string();
      } catch (error) {
        ensure(error instanceof BusError, `no BusError: ${error instanceof Error ? error.stack : error}`);
      }
    },
    async close(): Promise<void> {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Every line of a file comes out whole, however the file is cut into blocks. */
async function linesRead(path: string, lines: readonly string[]): Promise<void> {
  writeFileSync(path, lines.map((line) => `${line}\n`).join(""));
  const stop = new AbortController();
  const told: string[] = [];
  const messages = kernelMessages({ path, signal: stop.signal, pollMs: 1, onCaughtUp: () => stop.abort() });
  for await (const { text } of messages) told.push(text);
  const expected = lines.filter((line) => line !== "").map((line) => line.toWellFormed());
  ensure(told.length === expected.length, `${told.length} lines of ${expected.length}`);
  for (const [at, text] of told.entries())
    ensure(text === expected[at], () => `line ${at} became ${JSON.stringify(text.slice(0, 200))}`);
}

export async function hostGroup(): Promise<TargetGroup> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const bus = await openBus(folder);
  const replies = busReplies();
  const lines = [...XIDS, ...recorded("kmsg", "").flatMap((text) => text.split("\n"))];
  const targets = [
    target<string>({
      name: "kernel messages: Xid, SXid",
      inputs: 100_000,
      make: (draw) => mutatedText(draw, draw.of(lines), ["Xid (PCI:", "): ", ", Fatal, ", "NVRM: ", "GPU at PCI:"]),
      check(text) {
        const xid = readXid(text);
        if (xid !== undefined) {
          ensure(busOf(xid.bus) === xid.bus, `no bus: ${xid.bus}`);
          ensure(xid.message.length <= 400 && isPrintable(xid.message), "a message that is none");
        }
        const sxid = readSXid(text);
        if (sxid !== undefined)
          ensure(sxid.message.length <= 1000 && isPrintable(sxid.message), "a message that is none");
        isDriverLoad(text);
      },
    }),
    target<string[]>({
      name: "a kernel log that is a file",
      inputs: 2000,
      make: (draw) =>
        draw.list(30, () =>
          draw
            .any(
              () => draw.of(lines),
              () => "é🜁".repeat(draw.below(2500)),
              () => hostileText(draw).slice(0, 7000),
            )
            .replaceAll("\n", " ")
            .toWellFormed(),
        ),
      check: (input) => linesRead(join(folder, "kmsg"), input),
    }),
    target<Proc>({
      name: "/proc: stat, loadavg, meminfo, pressure, net/dev",
      inputs: 45_000,
      make: (draw) =>
        Object.fromEntries(
          Object.entries(PROC).map(([name, text]) => [
            name,
            draw.any(
              () => text,
              () => mutatedLines(draw, text, /[ :=]+/),
              () => mutatedText(draw, text),
            ),
          ]),
        ) as Proc,
      check({ stat, loadavg, meminfo, pressure, netdev }) {
        const ticks = parseCpuTicks(stat);
        ensure(
          ticks === undefined || (ticks.busy >= 0 && ticks.total >= ticks.busy && Number.isFinite(ticks.total)),
          `no ticks: ${JSON.stringify(ticks)}`,
        );
        const memory = parseMeminfo(meminfo);
        const network = parseNetDev(netdev);
        const [load, some10] = [parseLoadAverage1(loadavg), parsePressureSome10(pressure)];
        const told = HostTelemetry.safeParse({
          ...(load !== undefined && { loadAverage1: load }),
          ...(some10 !== undefined && { memoryPressureSome10: some10 }),
          ...(memory !== undefined && { memoryTotalMiB: memory.totalMiB, memoryUsedMiB: memory.availableMiB ?? 0 }),
          ...(network !== undefined && { networkRxBytes: network.rxBytes, networkTxBytes: network.txBytes }),
        });
        ensure(told.success, () => `cannot be told: ${told.error}`);
      },
    }),
    target<string>({
      name: "cgroups of a process",
      inputs: 45_000,
      make: (draw) =>
        draw.any(
          () => mutatedText(draw, draw.of(CGROUPS), ["/docker/", ID, ".scope", "0::/"]),
          () => mutatedLines(draw, draw.of(CGROUPS), /[/:]/, [ID, `libpod-${ID}`]),
        ),
      check(text) {
        const owner = ownerOf(text);
        if (owner !== undefined && "container" in owner)
          ensure(/^[0-9a-f]{64}$/.test(owner.container), "no container id");
      },
    }),
    target<CloudSays>({
      name: "answers of a cloud's metadata service",
      inputs: 30_000,
      make: (draw) => ({
        cloud: draw.of(["aws", "azure", "gcp"]),
        answers: [cloudAnswer(draw), cloudAnswer(draw), cloudAnswer(draw), cloudAnswer(draw)],
      }),
      check: heeded,
    }),
    target<Record<string, string>>({
      name: "what the firmware says of itself (DMI)",
      inputs: 2000,
      make: (draw) =>
        Object.fromEntries(
          ["sys_vendor", "bios_version", "product_name", "chassis_asset_tag"].map((name) => [
            name,
            draw.any(
              () => mutatedText(draw, draw.of(["Amazon EC2", "4.11.amazon", "Google Compute Engine"])),
              () => hostileText(draw),
            ),
          ]),
        ),
      check(files) {
        for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
        ensure([undefined, "aws", "gcp", "azure"].includes(detectCloud(folder)), "no cloud");
      },
    }),
    target<BusSays>({
      name: "replies of a D-Bus",
      inputs: 10_000,
      make(draw) {
        const bytes = Buffer.from(replies);
        for (let left = draw.below(5); left > 0; left -= 1) bytes[draw.below(bytes.length)] = draw.below(256);
        const hello = draw.any(
          () => "OK 0123\r\n",
          () => "OK 0123\r\n",
          () => mutatedText(draw, "OK 0123\r\n"),
          () => "REJECTED EXTERNAL\r\n",
        );
        return {
          hello,
          bytes: draw.once(4) ? Buffer.concat([bytes.subarray(0, draw.below(bytes.length)), draw.bytes(40)]) : bytes,
          cut: draw.below(bytes.length),
        };
      },
      check: (input) => bus.asked(input),
    }),
  ];
  return {
    targets,
    async [Symbol.asyncDispose]() {
      await bus.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
