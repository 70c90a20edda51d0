import { describe, expect, it } from "vitest";
import { covers, glob, imageName, isImageReference } from "../../src/workload/image-patterns.ts";

const DIGEST = `sha256:${"0a".repeat(32)}`;
const OTHER = `sha256:${"0b".repeat(32)}`;

describe("what a reference means", () => {
  it.each([
    ["alpine", "docker.io", "library/alpine", ":latest"],
    ["alpine:3", "docker.io", "library/alpine", ":3"],
    ["me/app", "docker.io", "me/app", ":latest"],
    ["index.docker.io/alpine", "docker.io", "library/alpine", ":latest"],
    ["docker.io/library/alpine:3", "docker.io", "library/alpine", ":3"],
    ["GHCR.io/me/app:1", "ghcr.io", "me/app", ":1"],
    ["localhost/app", "localhost", "app", ":latest"],
    ["localhost:5000/app", "localhost:5000", "app", ":latest"],
    ["127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", ":x"],
    ["[::1]:5000/x", "[::1]:5000", "x", ":latest"],
    [`ghcr.io/me/app:1@${DIGEST}`, "ghcr.io", "me/app", `@${DIGEST}`],
  ])("%s is %s, %s, %s", (reference, host, path, version) => {
    expect(imageName(reference)).toEqual({ host, path, version });
  });
});

describe("a pattern of the owner's", () => {
  it.each([
    // Everything.
    ["*", "anything/at:all"],
    ["*llama*", "ghcr.io/me/llama-3:8b"],
    // Docker Hub, however it is written.
    ["alpine", "alpine"],
    ["alpine", "alpine:3"],
    ["alpine", "docker.io/library/alpine:3"],
    ["docker.io/library/alpine", "alpine"],
    ["alpine:3.*", "alpine:3.20"],
    ["alpine:latest", "alpine"],
    ["docker.io/*", "me/app:1"],
    ["me/*", "index.docker.io/me/app:1"],
    // Registries, repositories, tags, digests.
    ["ghcr.io", "ghcr.io/me/app:1"],
    ["GHCR.io", "ghcr.io/me/app"],
    ["ghcr.io/*", "ghcr.io/me/app:1"],
    ["ghcr.io/me/*", "ghcr.io/me/a/b:1"],
    ["ghcr.io/me/*", `ghcr.io/me/app@${DIGEST}`],
    ["ghcr.io/me/app", "ghcr.io/me/app:1"],
    ["ghcr.io/me/app:1", "ghcr.io/me/app:1"],
    ["ghcr.io/me/app:*", "ghcr.io/me/app:1"],
    [`ghcr.io/me/app@${DIGEST}`, `ghcr.io/me/app@${DIGEST}`],
    [`ghcr.io/me/app:1@${DIGEST}`, `ghcr.io/me/app:2@${DIGEST}`],
    ["127.0.0.1:5000", "127.0.0.1:5000/x"],
    ["127.0.0.1:*", "127.0.0.1:5000/x:1"],
    ["localhost:5000/*", "localhost:5000/x"],
    ["*.corp.example/*", "eu.corp.example/app"],
  ])("%s covers %s", (pattern, reference) => {
    expect(covers(pattern, reference)).toBe(true);
  });

  it.each([
    ["alpine", "alpine-evil"],
    ["alpine", "evil/alpine"],
    ["alpine", "ghcr.io/library/alpine"],
    ["alpine*", "alpine-tools/x"],
    ["alpine:3*", "alpine:4"],
    ["alpine:3*", "alpine:30000/evil"],
    ["library/*", "ghcr.io/library/alpine"],
    ["me/*", "me-too/app"],
    ["ghcr.io", "ghcr.io.evil.example/app"],
    ["ghcr.io/me/*", "ghcr.io/me-too/x"],
    ["ghcr.io/me/*", "evil.example/ghcr.io/me/x"],
    ["ghcr.io/me/*", "ghcr.io:444/me/x"],
    ["ghcr.io/me/app", "ghcr.io/me/app2"],
    ["ghcr.io/me/app", "ghcr.io/me/app/x"],
    ["ghcr.io/me/app:1", "ghcr.io/me/app"],
    ["*.corp.example/*", "evil.example/x.corp.example/app"],
    ["*.corp.example/*", "corp.example/app"],
    // A registry fetches the digest and looks at no tag: the tag cannot vouch for it.
    ["ghcr.io/me/app:1", `ghcr.io/me/app:1@${DIGEST}`],
    [`ghcr.io/me/app@${DIGEST}`, `ghcr.io/me/app@${OTHER}`],
    [`ghcr.io/me/app@${DIGEST}`, "ghcr.io/me/app:1"],
  ])("%s does not cover %s", (pattern, reference) => {
    expect(covers(pattern, reference)).toBe(false);
  });
});

describe("a star", () => {
  it.each([
    ["alpine", "alpine", true],
    ["alpine:3", "alpine", false],
    ["anything/at:all", "*", true],
    ["", "*", true],
    ["ghcr.io/acme/x:1", "ghcr.io/acme/*", true],
    ["ghcr.io/acmeevil/x", "ghcr.io/acme/*", false],
    ["evil.io/ghcr.io/acme/x", "ghcr.io/acme/*", false],
    ["a.b", "a?b", false],
    ["aXb", "a.b", false],
    ["ab", "ab*ba", false],
    ["aba", "ab*ba", false],
    ["abba", "ab*ba", true],
    ["a-b-c", "a*b*c", true],
    ["a-c-b", "a*b*c", false],
    ["abc", "a**c", true],
    ["x:cuda12-v1", "*cuda*-v1", true],
    ["(+)[a-z]\\", "(+)[a-z]\\", true],
    ["$", "^.*$", false],
  ])("%j against %j: %s", (text, pattern, matches) => {
    expect(glob(text, pattern)).toBe(matches);
  });

  it("take no time over hostile ones", () => {
    const began = performance.now();
    expect(glob("a".repeat(512), `${"a*".repeat(20_000)}b`)).toBe(false);
    expect(glob("a".repeat(100_000), `${"*a".repeat(1000)}*b`)).toBe(false);
    expect(performance.now() - began).toBeLessThan(500);
  });
});

describe("image references", () => {
  it.each([
    "alpine",
    "alpine:3.20",
    "library/alpine",
    "ghcr.io/acme/a-b_c/d__e:v1.2-rc.1",
    "localhost:5000/x",
    "127.0.0.1:5000/x:y",
    "[::1]:5000/x",
    "REGISTRY.example.COM/x",
    `alpine@${DIGEST}`,
    `ghcr.io/x/y:1@${DIGEST}`,
  ])("%s is one", (text) => {
    expect(isImageReference(text)).toBe(true);
  });

  it.each([
    "",
    "Alpine",
    ":tag",
    "alpine:",
    "alpine@sha256:abc",
    "alpine@md5:0123",
    "-x",
    "x-",
    "/x",
    "x/",
    "x y",
    "x\ny",
    "x\n",
    "x?tag=1",
    "x%2e",
    "x#1",
    "http://x/y",
    "x;rm -rf",
    `x:${"t".repeat(129)}`,
    "x".repeat(513),
    // Paths that mean something else once somebody puts them in a URL.
    "x//y",
    "x/../y",
    "ghcr.io/acme/../evil/x",
    "x/./y",
    "x/.y",
    "x..y",
  ])("%j is none", (text) => {
    expect(isImageReference(text)).toBe(false);
  });

  it("takes no time over hostile ones", () => {
    const began = performance.now();
    for (const part of ["a", "a.", "a-", "a/", "_", "a__", "1:", "[:", "a@"]) {
      isImageReference(`${part.repeat(512 / part.length)}!`);
      isImageReference(`${part.repeat(1_000_000)}!`);
    }
    expect(performance.now() - began).toBeLessThan(500);
  });
});
