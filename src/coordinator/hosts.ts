import { hostname, networkInterfaces } from "node:os";

/** True for addresses and names that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** `host:port` as a URL writes it: IPv6 addresses in brackets. */
export function authority(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/**
 * Tells whether an HTTP `Host` header names this coordinator. Two attacks end here: a browser page that rebinds its own
 * name to this address (the header is then the page's name), and a false coordinator that passes on what an agent signed
 * for it (the signature is bound to the false one's name, so only a header with that name would make it fit).
 */
export function hostCheck(options: {
  listenHost: string;
  port: number;
  secure: boolean;
  /** Names it is reached by from outside, `example.org` or `example.org:8443`. */
  publicHosts: readonly string[];
}): { accepts(host: string | undefined): boolean; describe(): string } {
  const { listenHost, port, secure } = options;
  const withPort = (host: string) => {
    const full = authority(host, port).toLowerCase();
    return port === (secure ? 443 : 80) ? [full, full.slice(0, full.lastIndexOf(":"))] : [full];
  };
  const configured = options.publicHosts.flatMap((host) => [host.toLowerCase(), `${host.toLowerCase()}:${port}`]);
  const fixed = new Set([...configured, ...[listenHost, "localhost", "127.0.0.1", "::1"].flatMap(withPort)]);
  const isAny = listenHost === "0.0.0.0" || listenHost === "::";
  // Read anew each time: a machine's addresses come and go while this runs.
  const own = () =>
    isAny
      ? [
          hostname(),
          ...Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address)),
        ]
      : [];
  return {
    accepts(host) {
      if (host === undefined) return false;
      const name = host.toLowerCase();
      return fixed.has(name) || own().flatMap(withPort).includes(name);
    },
    describe: () => [...new Set([...options.publicHosts, authority(listenHost, port)])].join(", "),
  };
}
