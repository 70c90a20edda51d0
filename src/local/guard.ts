import type { IncomingHttpHeaders } from "node:http";

/** Names by which this machine calls itself; the port is whoever's forwards to the socket. */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

/** Whether an address of a socket is this machine's own to itself. */
export function isLoopback(address: string): boolean {
  return /^(?:::ffff:)?127\.|^::1$/.test(address);
}

/**
 * Why a request is not answered: it comes from a web page. None reaches a unix socket by itself, but one that somebody forwards a
 * port of loopback to can be reached by every page the owner looks at, and by every name that is made to point there. Undefined
 * where nothing speaks against it.
 */
export function refuteRequest({ host = "", origin, "sec-fetch-site": site }: IncomingHttpHeaders): string | undefined {
  if (!LOOPBACK.test(host)) return otherHost(host);
  if (origin !== undefined) return `requests from pages (of ${origin.slice(0, 100)}) are not answered`;
  // "none" is what the owner typed into the address bar.
  if (site !== undefined && site !== "none") return "requests from pages are not answered";
  return undefined;
}

/**
 * The same for the local page, whose own requests are answered: those whose origin is the very host they go to. `anyHost`: what
 * is asked for is meant for other machines, which call this one by names we do not know.
 */
export function refutePageRequest(
  { host = "", origin, "sec-fetch-site": site }: IncomingHttpHeaders,
  { anyHost = false }: { anyHost?: boolean } = {},
): string | undefined {
  if (!anyHost && !LOOPBACK.test(host)) return otherHost(host);
  if (origin !== undefined && origin !== `http://${host}`)
    return `requests from other pages (of ${origin.slice(0, 100)}) are not answered`;
  if (site !== undefined && site !== "none" && site !== "same-origin")
    return "requests from other pages are not answered";
  return undefined;
}

function otherHost(host: string): string {
  return `the Host header is "${host.slice(0, 100)}": only localhost is answered`;
}
