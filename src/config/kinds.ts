import { isIP } from "node:net";
import { posix } from "node:path";
import { Secret } from "../protocol/secret.ts";
import { networkException } from "./network-exception.ts";

/** A value read, or what would have been right: "a whole number from 1 to 5". */
export type Reading<T> = { ok: true; value: T } | { ok: false; expected: string };

/** A kind of value a key may have. */
export interface Kind<T> {
  /** For the reference: "string", "whole number, 1 to 5". */
  name: string;
  read(value: unknown): Reading<T>;
  /** The value as TOML would give it, from the text of an environment variable or a flag. */
  fromText(text: string): unknown;
  /** All the values there are, where they are few. */
  choices?: readonly string[];
  secret?: true;
}

const no = (expected: string): { ok: false; expected: string } => ({ ok: false, expected });

/** `pattern` must match whole; `expected` says in words what it stands for. */
export function text(options: { maxLength?: number; pattern?: RegExp; expected?: string } = {}): Kind<string> {
  const { maxLength = 4096, pattern, expected = `a text of 1 to ${maxLength} characters` } = options;
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      if (typeof value !== "string" || value.length === 0 || value.length > maxLength) return no(expected);
      return pattern === undefined || pattern.test(value) ? { ok: true, value } : no(expected);
    },
  };
}

/** A file or folder: absolute, so that it means the same wherever the daemon is started. */
export function path(): Kind<string> {
  return text({ pattern: /^\/[^\0]*$/, expected: "an absolute path" });
}

/** A folder that is made where it is missing. Below /proc nothing can be, and Node (24.21) tries for ever. */
export function folder(): Kind<string> {
  const inner = path();
  return {
    ...inner,
    read(value) {
      const reading = inner.read(value);
      const isInProc = reading.ok && /^\/proc(\/|$)/.test(posix.normalize(reading.value));
      return isInProc ? no("an absolute path, not below /proc, where no folder can be made") : reading;
    },
  };
}

export function secret(): Kind<Secret> {
  const inner = text({ maxLength: 4096 });
  return {
    name: "string",
    secret: true,
    fromText: inner.fromText,
    read(value) {
      const reading = inner.read(value);
      return reading.ok ? { ok: true, value: new Secret(reading.value) } : reading;
    },
  };
}

export function oneOf<const T extends string>(...choices: readonly T[]): Kind<T> {
  const expected = `one of ${choices.map((choice) => `"${choice}"`).join(", ")}`;
  return {
    name: choices.map((choice) => `"${choice}"`).join(" \\| "),
    choices,
    fromText: (value) => value,
    read(value) {
      const choice = choices.find((candidate) => candidate === value);
      return choice === undefined ? no(expected) : { ok: true, value: choice };
    },
  };
}

interface Bounds {
  min: number;
  max: number;
}

export function integer({ min, max }: Bounds): Kind<number> {
  return numeric("whole number", { min, max }, Number.isInteger);
}

export function number({ min, max }: Bounds): Kind<number> {
  return numeric("number", { min, max }, Number.isFinite);
}

function numeric(name: string, { min, max }: Bounds, fits: (value: number) => boolean): Kind<number> {
  return {
    name: `${name}, ${min} to ${max}`,
    fromText: (value) => (/^[+-]?\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : value),
    read: (value) =>
      typeof value === "number" && fits(value) && value >= min && value <= max
        ? { ok: true, value }
        : no(`a ${name} from ${min} to ${max}`),
  };
}

export function boolean(): Kind<boolean> {
  // No object: "constructor" is a word that every object knows.
  const words = new Map<unknown, boolean>([
    ...[true, "true", "1", "yes"].map((word) => [word, true] as const),
    ...[false, "false", "0", "no"].map((word) => [word, false] as const),
  ]);
  return {
    name: "boolean",
    fromText: (value) => words.get(value.trim().toLowerCase()) ?? value,
    read: (value) => (typeof value === "boolean" ? { ok: true, value } : no("true or false")),
  };
}

/** A list of texts; in an environment variable separated by commas. */
export function textList(): Kind<readonly string[]> {
  const expected = 'a list of texts, e.g. ["a", "b"]';
  return {
    name: "list of strings",
    fromText: (value) => commaSeparated(value),
    read(value) {
      if (!Array.isArray(value)) return no(expected);
      const texts = value.filter((entry): entry is string => typeof entry === "string" && entry.length > 0);
      return texts.length === value.length ? { ok: true, value: texts } : no(expected);
    },
  };
}

/** A list of absolute paths; in an environment variable separated by commas. */
export function pathList(): Kind<readonly string[]> {
  const [list, single] = [textList(), path()];
  const expected = 'a list of absolute paths, e.g. ["/etc/gpunode/cosign.pub"]';
  return {
    name: "list of paths",
    fromText: list.fromText,
    read(value) {
      const reading = list.read(value);
      return reading.ok && reading.value.every((entry) => single.read(entry).ok) ? reading : no(expected);
    },
  };
}

/** A table of texts; in an environment variable `key=value` pairs separated by commas. */
export function textTable(limits: { keyLength: number; valueLength: number }): Kind<Readonly<Record<string, string>>> {
  const expected = `a table of texts, e.g. { site = "garage" }, names up to ${limits.keyLength} and values up to ${limits.valueLength} characters`;
  return {
    name: "table of strings",
    fromText(value) {
      const pairs = commaSeparated(value).map((pair) => [pair, pair.indexOf("=")] as const);
      if (pairs.some(([, at]) => at < 1)) return value;
      return Object.fromEntries(pairs.map(([pair, at]) => [pair.slice(0, at).trim(), pair.slice(at + 1).trim()]));
    },
    read(value) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return no(expected);
      const entries = Object.entries(value);
      const fits = entries.every(
        ([key, entry]) =>
          key.length > 0 &&
          key.length <= limits.keyLength &&
          typeof entry === "string" &&
          entry.length <= limits.valueLength,
      );
      return fits ? { ok: true, value: Object.fromEntries(entries) as Record<string, string> } : no(expected);
    },
  };
}

/** Ports from one to another, both included: "30000-30999". */
export function portRange(): Kind<PortRange> {
  const expected = 'a range of ports within 1-65535 such as "30000-30999"';
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      const [, first, last] = /^(\d{1,5})\s*-\s*(\d{1,5})$/.exec(typeof value === "string" ? value.trim() : "") ?? [];
      const range = { from: Number(first), to: Number(last) };
      const fits = range.from >= 1 && range.to <= 65535 && range.from <= range.to;
      return fits ? { ok: true, value: range } : no(expected);
    },
  };
}

/** An address to listen on, `host:port` with an IP address for a host; or "off". */
export function listenAddress(): Kind<ListenAddress | "off"> {
  const expected = 'an IP address with a port, such as "127.0.0.1:9835" or "[::1]:9835", or "off"';
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      if (value === "off") return { ok: true, value };
      const [, six, four = "", port] =
        /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})$/i.exec(typeof value === "string" ? value.trim() : "") ?? [];
      const host = six ?? four;
      const fits = isIP(host) === (six === undefined ? 4 : 6) && Number(port) <= 65535;
      return fits ? { ok: true, value: { host, port: Number(port) } } : no(expected);
    },
  };
}

/** Port 0: any free one. */
export interface ListenAddress {
  host: string;
  port: number;
}

export interface PortRange {
  from: number;
  to: number;
}

/**
 * Address of a coordinator: scheme, host and port. `https` and `http` are what people copy out of a browser; they mean
 * `wss` and `ws`.
 */
export function coordinatorUrl(): Kind<string> {
  const expected = 'an address such as "wss://coordinator.example" (scheme, host and port only)';
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      if (typeof value !== "string" || !URL.canParse(value)) return no(expected);
      const { protocol, host, pathname, search, hash, username, password } = new URL(value);
      const scheme = { "wss:": "wss", "https:": "wss", "ws:": "ws", "http:": "ws" }[protocol];
      const rest = [search, hash, username, password].join("");
      const bare = pathname === "/" || pathname.replace(/\/$/, "") === "/v1/agent";
      return scheme === undefined || host === "" || rest !== "" || !bare
        ? no(expected)
        : { ok: true, value: `${scheme}://${host}` };
    },
  };
}

/** Address of an HTTP proxy. Kept as a secret: a password may stand in it. */
export function proxyUrl(): Kind<Secret> {
  return {
    name: "string",
    secret: true,
    fromText: (value) => value,
    read(value) {
      const url = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
      const fits = url !== undefined && /^https?:$/.test(url.protocol) && url.hostname !== "";
      return fits
        ? { ok: true, value: new Secret(String(value)) }
        : no('an address such as "http://proxy.example:3128"');
    },
  };
}

/** Address of a cloud's metadata service: plain HTTP, host and port. */
export function metadataUrl(): Kind<string> {
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      const url = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
      return url?.protocol === "http:" && url.href === `http://${url.host}/`
        ? { ok: true, value: url.origin }
        : no('an address such as "http://169.254.169.254" (http, host and port only)');
    },
  };
}

/** An IPv4 or IPv6 address of this machine. */
export function ipAddress(): Kind<string> {
  return {
    name: "string",
    fromText: (value) => value,
    read: (value) =>
      typeof value === "string" && isIP(value) !== 0
        ? { ok: true, value }
        : no('an IP address such as "127.0.0.1" or "0.0.0.0"'),
  };
}

/** Addresses with or without a port, each as `networkException` reads it. */
export function networkExceptions(): Kind<readonly string[]> {
  const list = textList();
  const expected = 'a list such as ["192.168.1.10:2049/tcp", "10.0.0.0/24", "[fd00::5]:443"]';
  return {
    ...list,
    read(value) {
      const reading = list.read(value);
      if (!reading.ok) return no(expected);
      const wrong = reading.value.find((entry) => networkException(entry) === undefined);
      return wrong === undefined ? reading : no(`${expected}; "${wrong}" is no address, range or port`);
    },
  };
}

function commaSeparated(value: string): string[] {
  return value
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}
