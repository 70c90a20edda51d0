import { finished } from "node:stream/promises";
import type Docker from "dockerode";
import { afterEach, describe, expect, it } from "vitest";
import { buildImage } from "../../src/demo/image.ts";
import { type RegistryOptions, startRegistry } from "../../src/demo/registry.ts";
import { rootFileSystem } from "../../src/demo/root-layer.ts";
import {
  containersLeft,
  docker,
  engineIsPrivate,
  haveEngine,
  pushImage,
  registryAddress,
  smallImage,
} from "../support/engine.ts";

/** Images that a test has brought into the engine and that leave it with the test. */
const pulled = new Set<string>();

const LABEL = "gpunode-test=demo-engine";

describe.runIf(haveEngine)("a real engine", () => {
  afterEach(async () => {
    for (const id of await containersLeft(LABEL)) await docker().getContainer(id).remove({ force: true });
    expect(await containersLeft(LABEL)).toEqual([]);
    for (const reference of pulled) await docker().getImage(reference).remove();
    pulled.clear();
  });

  it("pulls an image from the demo registry and runs it", async () => {
    await using registry = await startRegistry();
    const image = await smallImage({ env: { GREETING: "hello" }, cmd: ["sh", "-c", "echo $GREETING from $(uname)"] });
    const reference = registry.add("demo/hello:1", image);
    expect(await pull(reference)).toEqual([]);
    expect(await output(reference)).toBe("hello from Linux\n");
  });

  it("runs an image made of this machine's own shell and core programs, where there is no busybox", async () => {
    await using registry = await startRegistry();
    const image = await buildImage({ root: await rootFileSystem({ busybox: "none" }), user: "nobody" });
    const reference = registry.add("demo/own-shell", image);
    expect(await pull(reference)).toEqual([]);
    expect(await output(reference, { Cmd: ["sh", "-c", "id -un; seq 3 | tail -n 1"] })).toBe("nobody\n3\n");
  });

  it("pulls by digest an image pushed to the run's registry", async () => {
    const image = await smallImage({ format: "oci", files: [{ path: "/etc/motd", content: "pushed\n" }] });
    await pushImage("demo/pushed:1", image);
    const reference = `${registryAddress()}/demo/pushed@${image.manifest.digest}`;
    expect(await pull(reference)).toEqual([]);
    expect(await output(reference, { Cmd: ["cat", "/etc/motd"] })).toBe("pushed\n");
  });

  it.runIf(engineIsPrivate)("shows the requested GPUs to the container", async () => {
    const reference = await pushed("demo/gpu:1");
    const request = { Driver: "nvidia", DeviceIDs: ["GPU-0b5c", "GPU-77aa"], Capabilities: [["gpu"]] };
    const text = await output(reference, { Cmd: ["env"], HostConfig: { DeviceRequests: [request] } });
    expect(text).toContain("NVIDIA_VISIBLE_DEVICES=GPU-0b5c,GPU-77aa\n");
  });

  it("publishes a port on loopback", async () => {
    const reference = await pushed("demo/web:1", { files: [{ path: "/www/index.html", content: "served\n" }] });
    const container = await docker().createContainer({
      Image: reference,
      Cmd: ["httpd", "-f", "-p", "8000", "-h", "/www"],
      Labels: labels(),
      ExposedPorts: { "8000/tcp": {} },
      HostConfig: { PortBindings: { "8000/tcp": [{ HostIp: "127.0.0.1", HostPort: "" }] } },
    });
    await container.start();
    const { NetworkSettings } = await container.inspect();
    const port = NetworkSettings.Ports["8000/tcp"]?.[0]?.HostPort;
    await expect
      .poll(() => fetch(`http://127.0.0.1:${port}/`).then((response) => response.text(), String), { timeout: 5_000 })
      .toBe("served\n");
  });

  it("is told who is asked for a password", async () => {
    const auth = { username: "node", password: "secret" };
    await using served = await serving({ auth });
    await expect(pull(served.reference)).rejects.toMatchObject({ statusCode: 500 });
    expect(await pull(served.reference, { authconfig: { ...auth, serveraddress: served.address } })).toEqual([]);
  });

  it("goes on after a reset in the middle of a layer", async () => {
    await using served = await serving({ faults: { resetAfterBytes: 300_000, times: 1 } });
    expect(await pull(served.reference)).toEqual([]);
    const layers = served.requests.filter(({ path, status }) => path.includes("/blobs/") && status === 206);
    expect(layers.length).toBeGreaterThan(0);
  });

  it("hangs on a stalled layer until the pull is given up", async () => {
    await using served = await serving({ faults: { stallAfterBytes: 300_000 } });
    const giveUp = new AbortController();
    let pulling = true;
    const outcome = pull(served.reference, { abortSignal: giveUp.signal })
      .catch((error: unknown) => error)
      .finally(() => {
        pulling = false;
      });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(pulling).toBe(true);
    giveUp.abort();
    expect(await outcome).toBeInstanceOf(Error);
  });
});

/** Pulls as every caller must: the stream ends without an error even where the pull failed, so its messages are read. */
async function pull(reference: string, options: object = {}): Promise<string[]> {
  const stream = await docker().pull(reference, options);
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString("utf8");
  });
  await finished(stream);
  const messages = text.split("\n").filter((line) => line.trim() !== "");
  const errors = messages.flatMap((line) => (JSON.parse(line) as { error?: string }).error ?? []);
  if (errors.length === 0) pulled.add(reference);
  return errors;
}

async function output(reference: string, options: Docker.ContainerCreateOptions = {}): Promise<string> {
  const container = await docker().createContainer({ Image: reference, Tty: true, Labels: labels(), ...options });
  await container.start();
  await container.wait();
  const log = await container.logs({ stdout: true, stderr: true });
  return log.toString("utf8").replaceAll("\r\n", "\n");
}

async function pushed(name: string, options: Parameters<typeof smallImage>[0] = {}): Promise<string> {
  const reference = await pushImage(name, await smallImage(options));
  expect(await pull(reference)).toEqual([]);
  return reference;
}

async function serving(options: RegistryOptions) {
  const registry = await startRegistry(options);
  const reference = registry.add(`faulty/${crypto.randomUUID()}:1`, await smallImage({ paddingBytes: 1_000_000 }));
  const { address, requests } = registry;
  return { reference, address, requests, [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose]() };
}

function labels(): Record<string, string> {
  const [key = "", value = ""] = LABEL.split("=");
  return { [key]: value };
}
