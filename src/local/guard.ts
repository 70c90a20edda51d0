import type { IncomingHttpHeaders } from "node:http";

/** Names by which this machine calls itself; the port is whoever's forwards to the socket. */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

/**
 * Why a request is not answered: it comes from a web page. None reaches a unix socket by itself, but one that somebody forwards a
 * port of loopback to can be reached by every page the owner looks at, and by every name that is made to point there. Undefined
 * where nothing speaks against it.
 */
export function refuteRequest(headers: IncomingHttpHeaders): string | undefined {
  const { host = "", origin } = headers;
  const site = headers["sec-fetch-site"];
  if (!LOOPBACK.test(host)) return `the Host header is "${host.slice(0, 100)}": only localhost is answered`;
  if (origin !== undefined) return `requests from pages (of ${origin.slice(0, 100)}) are not answered`;
  // "none" is what the owner typed into the address bar.
  if (site !== undefined && site !== "none") return "requests from pages are not answered";
  return undefined;
}
