import { once } from "node:events";
import { connect } from "node:net";

/*
 * As much of D-Bus as it takes to ask a question on this machine: method calls with strings, and their replies. A program that asks
 * for us (systemctl, busctl) takes five to ten times as long, and longest when a machine shuts down and everything else starts
 * programs as well. The wire is described in the D-Bus Specification, "Message Protocol"; numbers below are from there.
 */

/** A method call; `args` are strings. */
export interface MethodCall {
  destination: string;
  path: string;
  interface: string;
  member: string;
  args?: readonly string[];
}

/** The bus or the one who was asked said no, or what came is not D-Bus. */
export class BusError extends Error {
  override readonly name = "BusError";
}

/** Some machines have thousands of units; a reply longer than this is no answer to anything asked here. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const LITTLE_ENDIAN = "l".charCodeAt(0);
const BIG_ENDIAN = "B".charCodeAt(0);
const TYPE = { call: 1, reply: 2, error: 3 } as const;
const FIELD = { path: 1, interface: 2, member: 3, errorName: 4, replySerial: 5, destination: 6, signature: 8 } as const;
const PROTOCOL_VERSION = 1;
/** Type, flags, version and three lengths. */
const FIXED_HEADER_BYTES = 16;

/**
 * Asks all calls at once on the bus at that socket, and returns the bodies of the replies in the order of the calls; an error that was
 * replied takes the place of its body. Rejects where the bus cannot be reached, speaks something else, or has not answered when `signal` is aborted.
 */
export async function askBus(
  socketPath: string,
  calls: readonly MethodCall[],
  signal: AbortSignal,
): Promise<(BodyReader | BusError)[]> {
  const hello = "org.freedesktop.DBus";
  const all = [{ destination: hello, path: "/org/freedesktop/DBus", interface: hello, member: "Hello" }, ...calls];
  const socket = connect({ path: socketPath, signal });
  try {
    await once(socket, "connect", { signal });
    // A client that does not wait for the bus's word between these is what the specification allows and systemd's own do.
    const uid = Buffer.from(String(process.getuid?.() ?? 0)).toString("hex");
    socket.write(`\0AUTH EXTERNAL ${uid}\r\nBEGIN\r\n`);
    socket.write(Buffer.concat(all.map((call, index) => encodeCall(call, index + 1))));
    const replies = new Map<number, BodyReader | BusError>();
    let bytes = Buffer.alloc(0);
    let isAuthenticated = false;
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk as Buffer]);
      if (!isAuthenticated) {
        const end = bytes.indexOf("\r\n");
        if (end < 0) continue;
        const line = bytes.toString("latin1", 0, end);
        if (!line.startsWith("OK ")) throw new BusError(`the bus does not let us in: ${line.slice(0, 200)}`);
        isAuthenticated = true;
        bytes = bytes.subarray(end + 2);
      }
      for (;;) {
        const length = messageLength(bytes);
        if (length === undefined || bytes.length < length) break;
        const { replyTo, content } = decodeReply(bytes.subarray(0, length));
        if (replyTo !== undefined) replies.set(replyTo, content);
        bytes = bytes.subarray(length);
      }
      if (replies.size === all.length) return calls.map((_, index) => present(replies.get(index + 2)));
    }
    throw new BusError("the bus hung up");
  } catch (error) {
    throw signal.aborted ? new BusError("no answer in time", { cause: error }) : error;
  } finally {
    socket.destroy();
  }
}

/** The name of a unit and the like as a part of an object path: `gpunode_2eservice`. */
export function pathLabel(name: string): string {
  if (name === "") return "_";
  const escaped = (byte: number) => `_${byte.toString(16).padStart(2, "0")}`;
  return [...Buffer.from(name)]
    .map((byte, index) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z]/.test(char) || (index > 0 && /[0-9]/.test(char)) ? char : escaped(byte);
    })
    .join("");
}

/** Reads values one after the other; throws `BusError` where they go beyond the end. */
export class BodyReader {
  readonly #bytes: Buffer;
  readonly #isLittle: boolean;
  #at = 0;

  constructor(bytes: Buffer, isLittle: boolean) {
    this.#bytes = bytes;
    this.#isLittle = isLittle;
  }

  get at(): number {
    return this.#at;
  }

  align(size: number): void {
    this.#at = aligned(this.#at, size);
  }

  byte(): number {
    return this.#take(1).readUInt8();
  }

  uint32(): number {
    this.align(4);
    const bytes = this.#take(4);
    return this.#isLittle ? bytes.readUInt32LE() : bytes.readUInt32BE();
  }

  uint64(): bigint {
    this.align(8);
    const bytes = this.#take(8);
    return this.#isLittle ? bytes.readBigUInt64LE() : bytes.readBigUInt64BE();
  }

  /** A string or an object path. */
  string(): string {
    return this.#text(this.uint32());
  }

  signature(): string {
    return this.#text(this.byte());
  }

  /** An array, each element of which `read` reads. */
  array<T>(alignment: number, read: () => T): T[] {
    const length = this.uint32();
    this.align(alignment);
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new BusError("an array goes beyond its message");
    const elements: T[] = [];
    while (this.#at < end) {
      this.align(alignment);
      elements.push(read());
    }
    return elements;
  }

  #text(length: number): string {
    const text = this.#take(length).toString("utf8");
    if (this.byte() !== 0) throw new BusError("a text does not end where it says");
    return text;
  }

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new BusError("a value goes beyond its message");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

function encodeCall({ destination, path, interface: name, member, args = [] }: MethodCall, serial: number): Buffer {
  const body = new Writer();
  for (const arg of args) body.string(arg);
  const fields = new Writer();
  const field = (code: number, type: "o" | "s" | "g", value: string) => {
    fields.align(8).byte(code).signature(type);
    if (type === "g") fields.signature(value);
    else fields.string(value);
  };
  field(FIELD.path, "o", path);
  field(FIELD.interface, "s", name);
  field(FIELD.member, "s", member);
  field(FIELD.destination, "s", destination);
  if (args.length > 0) field(FIELD.signature, "g", "s".repeat(args.length));
  const header = new Writer();
  header.byte(LITTLE_ENDIAN).byte(TYPE.call).byte(0).byte(PROTOCOL_VERSION);
  header.uint32(body.length).uint32(serial).uint32(fields.length).append(fields).align(8);
  return header.append(body).bytes();
}

/** Bytes of the message that begins here; undefined while too little of it is there. */
function messageLength(bytes: Buffer): number | undefined {
  if (bytes.length < FIXED_HEADER_BYTES) return undefined;
  const order = bytes[0];
  if ((order !== LITTLE_ENDIAN && order !== BIG_ENDIAN) || bytes[3] !== PROTOCOL_VERSION) {
    throw new BusError("what came is not a D-Bus message");
  }
  const at = (offset: number) => (order === LITTLE_ENDIAN ? bytes.readUInt32LE(offset) : bytes.readUInt32BE(offset));
  const length = aligned(FIXED_HEADER_BYTES + at(12), 8) + at(4);
  if (length > MAX_MESSAGE_BYTES) throw new BusError(`a message of ${length} bytes is no answer to anything asked`);
  return length;
}

/** `replyTo`: serial of the call it answers; undefined for signals and calls, which nobody asked for. */
function decodeReply(message: Buffer): { replyTo?: number; content: BodyReader | BusError } {
  const isLittle = message[0] === LITTLE_ENDIAN;
  const type = message[1];
  const header = new BodyReader(message, isLittle);
  for (let skipped = 0; skipped < 4; skipped += 1) header.byte();
  header.uint32();
  header.uint32();
  const fields = new Map(header.array(8, () => [header.byte(), headerValue(header)] as const));
  header.align(8);
  const body = new BodyReader(message.subarray(header.at), isLittle);
  const replyTo = fields.get(FIELD.replySerial);
  if (typeof replyTo !== "number" || (type !== TYPE.reply && type !== TYPE.error)) return { content: body };
  if (type === TYPE.reply) return { replyTo, content: body };
  const says = String(fields.get(FIELD.signature) ?? "").startsWith("s") ? body.string() : "";
  return { replyTo, content: new BusError(`${fields.get(FIELD.errorName)}: ${says}`) };
}

/** Header fields hold nothing but these. */
function headerValue(header: BodyReader): string | number {
  const type = header.signature();
  if (type === "s" || type === "o") return header.string();
  if (type === "g") return header.signature();
  if (type === "u") return header.uint32();
  throw new BusError(`a header field of type "${type}" is unknown`);
}

/** Bytes put together with D-Bus's alignment, little endian. */
class Writer {
  readonly #bytes: number[] = [];

  get length(): number {
    return this.#bytes.length;
  }

  align(size: number): this {
    while (this.#bytes.length % size !== 0) this.#bytes.push(0);
    return this;
  }

  byte(value: number): this {
    this.#bytes.push(value);
    return this;
  }

  uint32(value: number): this {
    this.align(4);
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.#bytes.push(...bytes);
    return this;
  }

  string(text: string): this {
    const bytes = Buffer.from(text);
    this.uint32(bytes.length).#bytes.push(...bytes, 0);
    return this;
  }

  signature(text: string): this {
    this.#bytes.push(text.length, ...Buffer.from(text), 0);
    return this;
  }

  append(other: Writer): this {
    this.#bytes.push(...other.#bytes);
    return this;
  }

  bytes(): Buffer {
    return Buffer.from(this.#bytes);
  }
}

function aligned(offset: number, size: number): number {
  return Math.ceil(offset / size) * size;
}

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new BusError("a reply is missing");
  return value;
}
