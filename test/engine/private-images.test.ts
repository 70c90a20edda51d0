import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRegistry } from "../../src/demo/registry.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { startDebianRegistry } from "../support/debian-registry.ts";
import { startEchoingRegistry } from "../support/echoing-registry.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { openEngine, pullOptions, refusal } from "./harness.ts";

const LOGIN = { username: "ann", password: "a-private-password" };
/** bcrypt of that password. */
const HTPASSWD = "ann:$2b$05$abcdefghijklmnopqrstuuC/Qa4xCaoGte0bSGRy4vuJ9JUE8NVI.\n";
const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");

type Holding = AsyncDisposable & { tagged: string; exact: string };

/** An image nobody else has, in a registry that asks for `LOGIN`. */
async function inOurRegistry(): Promise<Holding> {
  const registry = await startRegistry({ auth: LOGIN });
  const image = await smallImage({ env: { OURS: registry.address } });
  const tagged = registry.add("team/private:1", image);
  return holding(registry, tagged, image.manifest.digest);
}

async function inDebiansRegistry(): Promise<Holding> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-registry-"));
  const htpasswd = join(dir, "htpasswd");
  writeFileSync(htpasswd, HTPASSWD);
  const options = { dir, packagesDir: PACKAGES_DIR, log: () => undefined };
  const image = await smallImage({ env: { OURS: dir } });
  await using open = await startDebianRegistry(options);
  await pushImage("team/private:1", image, open.address);
  const guarded = await startDebianRegistry({ ...options, htpasswd });
  const ended = {
    [Symbol.asyncDispose]: async () => {
      await guarded[Symbol.asyncDispose]();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return holding(ended, `${guarded.address}/team/private:1`, image.manifest.digest);
}

function holding(registry: AsyncDisposable, tagged: string, digest: string): Holding {
  const end = () => registry[Symbol.asyncDispose]();
  return { tagged, exact: `${tagged.replace(/:1$/, "")}@${digest}`, [Symbol.asyncDispose]: () => end() };
}

const right = () => new Secret(LOGIN);
const wrong = () => new Secret({ ...LOGIN, password: "not-the-password" });

describe.runIf(haveEngine).each([
  ["our own registry", inOurRegistry],
  ["Debian's registry with htpasswd", inDebiansRegistry],
])("a private image that is on the node already, from %s", (_, open) => {
  let engine: ReturnType<typeof openEngine>;
  let held: Holding;
  beforeAll(async () => {
    engine = openEngine();
    held = await open();
  }, 60_000);
  afterAll(async () => {
    await held[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it("is not given to who knows its digest alone, or comes with another login", async () => {
    const image = await engine.pull(held.tagged, pullOptions({ auth: right() }));
    expect(held.exact).toContain(image.digest);
    expect(await engine.image(held.exact)).toMatchObject({ id: image.id });
    for (const auth of [undefined, wrong()]) {
      for (const name of [held.exact, held.tagged]) {
        const refused = await refusal(engine.pull(name, pullOptions(auth === undefined ? {} : { auth })));
        expect(refused).toMatchObject({ code: "pull_failed", reason: "needs_auth" });
      }
    }
    expect((await engine.pull(held.exact, pullOptions({ auth: right() }))).id).toBe(image.id);
    // That one had it does not open it for the next.
    expect(await refusal(engine.pull(held.exact, pullOptions()))).toMatchObject({ reason: "needs_auth" });
  });
});

describe.runIf(haveEngine)("images that are on the node already", () => {
  it("the owner's own private ones are no tenant's, though this node never pulled them", async () => {
    await using held = await inOurRegistry();
    await using engine = openEngine();
    const stream = await docker().pull(held.tagged, { authconfig: { ...LOGIN, serveraddress: "" } });
    await new Promise((done) => docker().modem.followProgress(stream, done));
    expect(await engine.image(held.exact)).toBeDefined();
    expect(await refusal(engine.pull(held.exact, pullOptions()))).toMatchObject({ reason: "needs_auth" });
  });

  it("open ones stay so over a restart, without a word to the registry; private ones need it each time", async () => {
    let kept: string | undefined;
    const memory = {
      get: () => kept,
      set(text: string) {
        kept = text;
      },
    };
    const registry = await startRegistry();
    const image = await smallImage({ env: { OPEN: registry.address } });
    const exact = `${registry.add("team/open:1", image).replace(/:1$/, "")}@${image.manifest.digest}`;
    const held = await inOurRegistry();
    {
      await using engine = openEngine({ openImages: memory });
      await engine.pull(exact, pullOptions());
      await engine.pull(held.exact, pullOptions({ auth: right() }));
    }
    await registry[Symbol.asyncDispose]();
    await held[Symbol.asyncDispose]();
    await using restarted = openEngine({ openImages: memory });
    expect((await restarted.pull(exact, pullOptions())).digest).toBe(image.manifest.digest);
    const refused = await refusal(restarted.pull(held.exact, pullOptions({ auth: right() })));
    expect(refused).toMatchObject({ code: "pull_failed", reason: "registry_unreachable" });
  });

  it("a registry that repeats the login in its refusal, plain or encoded, is not repeated", async () => {
    await using hostile = await startEchoingRegistry();
    await using engine = openEngine();
    const logins = [
      new Secret({ username: "ann", password: 'echo/canary+41b7?&"x' }),
      new Secret({ identityToken: "echo-canary-token-41b7" }),
    ];
    for (const auth of logins) {
      for (const how of ["body", "challenge", "status"]) {
        const name = `${hostile.address}/${how}/image:1`;
        const error: unknown = await engine.pull(name, pullOptions({ auth })).catch((thrown: unknown) => thrown);
        const all = JSON.stringify([error, String(error), (error as Error).stack, (error as Error).cause]);
        expect(all).toContain("could not pull");
        for (const form of ["canary", "Y2FuYXJ5", "NhbmFye", "jYW5hcn"]) expect(all).not.toContain(form);
      }
    }
    expect(hostile.heard.join()).toContain("canary");
  });
});
