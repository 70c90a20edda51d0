import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it, onTestFinished, test } from "vitest";
import { pathLabel } from "../../src/cli/dbus.ts";
import { decideLeaving, decisionOn } from "../../src/cli/leaving.ts";
import { askSystemd, type Job, ownUnit } from "../../src/cli/systemd.ts";
import { scratch } from "./gpunode.ts";

const UNIT = { name: "gpunode.service", manager: "system" } as const;
const SETTINGS = { hostShutdown: true, hostShutdownMs: 60_000 };

it.each([
  ["cgroup v2", "0::/system.slice/gpunode.service\n", UNIT],
  ["cgroup v1", "4:memory:/elsewhere\n1:name=systemd:/system.slice/gpunode.service\n", UNIT],
  ["a group below the unit's", "0::/system.slice/gpunode.service/main\n", UNIT],
  ["a name the kernel could mistake", "0::/system.slice/_cgroup.service\n", { ...UNIT, name: "cgroup.service" }],
  [
    "a user's own systemd",
    "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gpunode.service\n",
    { ...UNIT, manager: "user" },
  ],
  ["a session", "0::/user.slice/user-1000.slice/session-3.scope\n", undefined],
  ["a terminal", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n", undefined],
  ["a container", "0::/\n", undefined],
  ["no systemd's hierarchy", "4:memory:/system.slice/gpunode.service\n", undefined],
  ["nonsense", "::\n0:/x.service\n\n", undefined],
])("the unit of a process in %s", (_, cgroup, unit) => {
  expect(ownUnit(cgroup)).toEqual(unit);
});

it.each([
  ["gpunode.service", "gpunode_2eservice"],
  ["gpu-node@2.service", "gpu_2dnode_402_2eservice"],
  ["2.service", "_32_2eservice"],
  ["ä.service", "_c3_a4_2eservice"],
  ["", "_"],
])("the unit %j is %s on the bus", (name, label) => {
  expect(pathLabel(name)).toBe(label);
});

const job = (type: string, unit: string = UNIT.name): Job => ({ unit, type });
const others = [job("stop", "ssh.service"), job("start", "umount.target"), job("stop", "poweroff.target")];

it.each<[string, Job[], string | undefined]>([
  ["nothing queued: somebody killed the process", [], undefined],
  ["jobs of others alone", others, undefined],
  ["a restart", [job("restart")], undefined],
  ["a start that takes too long", [job("start")], undefined],
  ["a restart while the machine goes down elsewhere", [job("restart"), job("start", "reboot.target")], undefined],
  ["a stop", [...others, job("stop")], "the service is stopped"],
  [
    "poweroff",
    [job("stop"), job("start", "shutdown.target"), job("start", "poweroff.target")],
    "the machine shuts down",
  ],
  ["reboot", [job("start", "shutdown.target"), job("start", "reboot.target"), job("stop")], "the machine restarts"],
  ["some other end of the machine", [job("stop"), job("start", "shutdown.target")], "the machine shuts down"],
])("%s", (_, jobs, message) => {
  const { leaving, sure } = decisionOn({ jobs, stopTimeoutMs: 90_000 }, UNIT, SETTINGS, { canExtend: true });
  expect(leaving).toEqual(message === undefined ? { kind: "detach" } : { kind: "stop", withinMs: 60_000, message });
  expect(sure).toBe(true);
});

it.each([
  ["more is asked for where it can be", 20_000, true, 60_000],
  ["what the unit has, less the daemon's own end", 30_000, false, 20_000],
  ["half of very little", 4_000, false, 2_000],
  ["what is configured where the unit waits for ever", Number.POSITIVE_INFINITY, false, 60_000],
  ["what is configured where the unit's time is unknown", undefined, false, 60_000],
])("time for the work: %s", (_, stopTimeoutMs, canExtend, withinMs) => {
  const answer = { jobs: [job("stop")], stopTimeoutMs };
  expect(decisionOn(answer, UNIT, SETTINGS, { canExtend }).leaving).toMatchObject({ kind: "stop", withinMs });
});

test("outside systemd the work goes on, and the sentence says how to end it", async () => {
  const decision = await decideLeaving(SETTINGS, {});
  expect(decision).toMatchObject({ leaving: { kind: "detach" }, sure: true });
  expect(decision.says).toContain("gpunode drain");
});

/** A bus that says what the test makes it say. */
async function bus(answer: (socket: Socket) => void): Promise<string> {
  const path = join(scratch(), "bus");
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("data", () => answer(socket));
  }).listen(path);
  await once(server, "listening");
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  return path;
}

const OK = "OK 0123456789abcdef0123456789abcdef\r\n";

/** A reply to the call of that number, little endian; its body is given as it goes over the wire. */
function reply(serial: number, signature: string, body: Buffer, type = 2): Buffer {
  const fields = Buffer.concat([
    Buffer.from([5, 1, 0x75, 0, serial, 0, 0, 0]),
    Buffer.from([8, 1, 0x67, 0, signature.length, ...Buffer.from(signature), 0]),
  ]);
  const header = Buffer.alloc(16);
  header.set([0x6c, type, 0, 1]);
  header.writeUInt32LE(body.length, 4);
  header.writeUInt32LE(9, 8);
  header.writeUInt32LE(fields.length, 12);
  return Buffer.concat([header, fields, Buffer.alloc((8 - (fields.length % 8)) % 8), body]);
}

const u32 = (value: number) => Buffer.from([value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24]);
const HELLO = reply(1, "s", Buffer.concat([u32(4), Buffer.from(":1.1\0")]));
const NO_JOBS = reply(2, "a(usssoo)", Buffer.concat([u32(0), u32(0)]));
const TWO_SECONDS = reply(3, "v", Buffer.from([1, 0x74, 0, 0, 0, 0, 0, 0, 0x80, 0x84, 0x1e, 0, 0, 0, 0, 0]));

test("an answer that comes byte by byte, out of order and among signals is understood", async () => {
  const signal = reply(2, "s", Buffer.concat([u32(1), Buffer.from("x\0")]), 4);
  const all = Buffer.concat([Buffer.from(OK), TWO_SECONDS, signal, HELLO, NO_JOBS]);
  const byteByByte = async function* () {
    for (const byte of all) {
      yield Buffer.from([byte]);
      await sleep(0);
    }
  };
  const systemBus = await bus((socket) => void Readable.from(byteByByte()).pipe(socket, { end: false }));
  expect(await askSystemd(UNIT, { systemBus })).toEqual({ jobs: [], stopTimeoutMs: 2000 });
});

test.each<[string, Buffer | string, RegExp]>([
  ["that lets nobody in", "REJECTED ANONYMOUS\r\n", /does not let us in: REJECTED/],
  ["that hangs up", "", /hung up/],
  ["that speaks HTTP", `${OK}HTTP/1.1 400 Bad Request\r\n\r\n`, /not a D-Bus message/],
  [
    "whose message is endless",
    Buffer.concat([Buffer.from(OK), Buffer.from(HELLO).fill(255, 4, 8)]),
    /no answer to anything/,
  ],
])("a bus %s is an error in a sentence", async (_, answer, message) => {
  const systemBus = await bus((socket) => socket.end(answer));
  await expect(askSystemd(UNIT, { systemBus })).rejects.toThrow(message);
});

test("a list of jobs that is cut off or garbled is an error, and not a list", async () => {
  for (const body of [
    Buffer.concat([u32(800), u32(0)]),
    Buffer.concat([u32(16), u32(0), u32(1), u32(0xffff), u32(0), u32(0)]),
    Buffer.concat([u32(12), u32(0), u32(1), u32(1), Buffer.from("abcd")]),
    Buffer.alloc(0),
  ]) {
    const answer = Buffer.concat([Buffer.from(OK), reply(1, "s", u32(0)), reply(2, "a(usssoo)", body), TWO_SECONDS]);
    const systemBus = await bus((socket) => socket.end(answer));
    await expect(askSystemd(UNIT, { systemBus })).rejects.toThrow(/beyond|does not end/);
  }
});

test("a bus that says nothing is waited for 1.5 s, one that is not there not at all", async () => {
  const systemBus = await bus(() => undefined);
  await expect(askSystemd(UNIT, { systemBus })).rejects.toThrow("no answer in time");
  await expect(askSystemd(UNIT, { systemBus: join(scratch(), "none") })).rejects.toThrow(/ENOENT/);
  await expect(askSystemd({ ...UNIT, manager: "user" }, { env: {} })).rejects.toThrow(/ENOENT/);
});
