/**
 * Images by name: what a reference means, and whether a pattern of the owner's covers it. Pure.
 *
 * Docker reads `alpine` as `docker.io/library/alpine:latest`, and where a reference has a digest it ignores the tag beside it. Patterns are
 * held against what a reference means, so that no way of writing it leads past them.
 */

/**
 * Docker's reference grammar (distribution/reference): `[host[:port]/]component{/component}[:tag][@digest]`. What passes here can
 * do no harm in a URL or a log.
 */
const COMPONENT = "[a-z0-9]+(?:(?:\\.|__?|-+)[a-z0-9]+)*";
const HOST = "(?:[a-zA-Z0-9]+(?:[.-][a-zA-Z0-9]+)*|\\[[0-9a-fA-F:]+\\])(?::\\d{1,5})?";
const REFERENCE = new RegExp(
  `^(?:${HOST}/)?${COMPONENT}(?:/${COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`,
);

/** True where `text` can name an image. */
export function isImageReference(text: string): boolean {
  return text.length <= 512 && REFERENCE.test(text);
}

/** A reference as Docker reads it. */
export interface ImageName {
  /** `docker.io` where the reference names none. Lower case. */
  host: string;
  /** `library/alpine`. */
  path: string;
  /** `@sha256:…` where there is a digest, else `:tag`; `:latest` where there is neither. */
  version: string;
}

/** Takes an image reference apart; see `isImageReference`. */
export function imageName(reference: string): ImageName {
  const [name = "", digest] = reference.split("@");
  const slash = name.indexOf("/");
  const first = name.slice(0, Math.max(0, slash));
  const [host, rest] = isHost(first) ? [first.toLowerCase(), name.slice(slash + 1)] : [HUB, name];
  const colon = rest.lastIndexOf(":");
  const hasTag = colon > rest.lastIndexOf("/");
  const path = hasTag ? rest.slice(0, colon) : rest;
  const version = digest !== undefined ? `@${digest}` : hasTag ? rest.slice(colon) : ":latest";
  const isHub = host === HUB || host === `index.${HUB}`;
  return { host: isHub ? HUB : host, path: isHub && !path.includes("/") ? `${OFFICIAL}${path}` : path, version };
}

const HUB = "docker.io";
/** Where Docker Hub keeps what is named by one word. */
const OFFICIAL = "library/";

/** Docker's rule: the part before the first slash is a host where it has a dot or a port, or is `localhost`. */
function isHost(first: string): boolean {
  return /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
}

/**
 * Whether the owner's pattern covers an image. `*` stands for any run of characters.
 *
 * - `*`: every image; `*llama*`: anywhere in the whole name, as in `docker.io/library/alpine:3`
 * - `ghcr.io`: a registry; `ghcr.io/me/*`, `*.corp.example/*`: a registry and what is in it. The host part stays the host part: a
 *   path that looks like a host is none
 * - `alpine`, `me/app`, `me/*`: on Docker Hub
 * - with `:tag` or `@sha256:…` only that, without either all of a repository. An image named by its digest has no tag.
 */
export function covers(pattern: string, reference: string): boolean {
  const { host, path, version } = imageName(reference);
  if (pattern.startsWith("*") && !/^\*[^/*]*\.[^/]*\//.test(pattern)) {
    return glob(`${host}/${path}`, pattern) || glob(`${host}/${path}${version}`, pattern);
  }
  const slash = pattern.indexOf("/");
  const first = slash < 0 ? "" : pattern.slice(0, slash);
  // Without a slash: a registry where there is a dot before any colon (`ghcr.io`, `127.0.0.1:5000`), else a word of Docker Hub.
  if (slash < 0 && /^[^:@]*\./.test(pattern)) return glob(host, pattern.toLowerCase());
  const [hosts, rest] = isHost(first) ? [first.toLowerCase(), pattern.slice(slash + 1)] : [HUB, pattern];
  const onHub = hosts === HUB || hosts === `index.${HUB}`;
  if (!glob(host, onHub ? HUB : hosts)) return false;
  const names = onHub && !/\/|^\*$/.test(rest) ? `${OFFICIAL}${rest}` : rest;
  const [repository = "", digest] = names.split("@");
  const last = repository.slice(repository.lastIndexOf("/") + 1);
  if (digest !== undefined) {
    // A tag beside the digest says nothing, here as there.
    const tag = last.includes(":") ? repository.slice(0, repository.lastIndexOf(":")) : repository;
    return glob(`${path}${version}`, `${tag}@${digest}`);
  }
  return last.includes(":") ? version.startsWith(":") && glob(`${path}${version}`, names) : glob(path, names);
}

/** `*` stands for any run of characters, everything else for itself. Takes time linear in both. */
export function glob(text: string, pattern: string): boolean {
  const parts = pattern.split("*");
  const first = parts[0] ?? "";
  if (parts.length === 1) return text === pattern;
  const last = parts.at(-1) ?? "";
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length) return false;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - last.length;
}
