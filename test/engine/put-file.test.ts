import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ContainerSpec } from "../../src/workload/needs.ts";
import { LABEL_NODE } from "../../src/workload/needs.ts";
import { containersLeft, docker, haveEngine } from "../support/engine.ts";
import { neverAborted, openEngine, pullSmallImage, refusal, removeAll, specFor, until } from "./harness.ts";

const INBOX = "/run/gpunode";
const FILE = `${INBOX}/note.json`;
/** A tenant that moves the inbox's parent away and back, with a link to /etc in its place meanwhile. */
const SWAPPING =
  "(while :; do mv /run /run2; ln -s /etc /run; rm /run; mv /run2 /run; done) >/dev/null 2>&1 & echo $! >/pid; sleep 0.2";

describe.runIf(haveEngine)("a file for a container", { timeout: 60_000 }, () => {
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    engine = openEngine();
    image = await pullSmallImage(engine);
  });
  afterEach(async () => {
    await removeAll(engine);
    expect(await containersLeft(`${LABEL_NODE}=${engine.nodeId}`)).toEqual([]);
    expect(await inboxes()).toEqual([]);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  async function inboxes(): Promise<string[]> {
    const { Volumes } = await docker().listVolumes({
      filters: { label: [`${LABEL_NODE}=${engine.nodeId}`] },
    } as object);
    return (Volumes ?? []).map(({ Name }) => Name);
  }

  async function running(command: string, changes: Partial<ContainerSpec> = {}): Promise<string> {
    const id = await engine.create(specFor(engine, image, command, { inbox: INBOX, ...changes }));
    await engine.start(id);
    return id;
  }

  const put = (id: string, text: string, options: { path?: string; mode?: 0o644 | 0o755; signal?: AbortSignal } = {}) =>
    engine.putFile(
      id,
      { path: options.path ?? FILE, text, mode: options.mode ?? 0o644 },
      { signal: options.signal ?? neverAborted() },
    );

  async function inside(id: string, script: string): Promise<string> {
    const { output } = await engine.exec(id, ["sh", "-c", script], { timeoutMs: 20_000, signal: neverAborted() });
    return output.trim();
  }

  it("is root's, whole, and read by everybody; a second one takes its place", async () => {
    const id = await running("sleep 600", { user: "1000:1000" });
    await put(id, "first\n");
    expect(await inside(id, `id -u; stat -c '%a %u:%g' ${FILE}; cat ${FILE}`)).toBe("1000\n644 0:0\nfirst");
    await put(id, "second, and longer\n");
    expect(await inside(id, `cat ${FILE}`)).toBe("second, and longer");
    await put(id, "#!/bin/sh\necho ran\n", { path: `${INBOX}/hook`, mode: 0o755 });
    expect(await inside(id, `${INBOX}/hook`)).toBe("ran");
    // Who is not root can neither change nor remove it.
    expect(await inside(id, `echo no >${FILE} || rm -f ${FILE} || mv ${INBOX} /tmp/x || cat ${FILE}`)).toContain(
      "second, and longer",
    );
  });

  it("needs no program in the image, and reaches a container that does not run", async () => {
    // Its own command is the last thing anybody runs in it: what is in the inbox is read back by another container.
    const id = await engine.create({ ...specFor(engine, image, ""), inbox: INBOX, entrypoint: ["/no/such/program"] });
    await put(id, "for later");
    const [volume = ""] = await inboxes();
    const reader = await running("sleep 600", { inbox: "/elsewhere", volumes: [{ name: volume, path: "/there" }] });
    expect(await inside(reader, "cat /there/note.json")).toBe("for later");
    await engine.remove(reader);
  });

  it("is written where the root file system is read-only", async () => {
    const labels = { [LABEL_NODE]: engine.nodeId };
    const request = { Image: image, Labels: labels, Entrypoint: ["/bin/sleep"], Cmd: ["600"] };
    const container = await docker().createContainer({
      ...request,
      HostConfig: {
        ReadonlyRootfs: true,
        Mounts: [
          {
            Type: "volume",
            Source: "",
            Target: INBOX,
            VolumeOptions: { NoCopy: true, Labels: labels, DriverConfig: { Name: "local", Options: {} } },
          },
        ],
      },
    });
    await engine.start(container.id);
    await put(container.id, "still here");
    expect(await inside(container.id, `touch /x 2>&1; cat ${FILE}`)).toMatch(/Read-only file system\nstill here$/);
  });

  it.each([
    ["the inbox's parent led to /etc", "mv /run /run2; ln -s /etc /run", "cat /run2/gpunode/note.json; ls /etc"],
    ["the inbox itself led to /etc", `rm -rf ${INBOX}; mv ${INBOX} /x; ln -s /etc ${INBOX}`, `cat ${FILE}; ls /etc`],
    ["a link in place of the file", `ln -s /etc/passwd ${FILE}; ln -s /etc/group ${INBOX}/.note.json`, `cat ${FILE}`],
    ["a pipe in place of the file", `mkfifo ${FILE} ${INBOX}/.note.json`, `cat ${FILE}`],
    ["a folder in place of the file", `mkdir -p ${FILE}/a/b ${INBOX}/.note.json/c`, `cat ${FILE}`],
    ["its parent swapped all the time", SWAPPING, "kill $(cat /pid); sleep 0.2; cat /run*/gpunode/note.json"],
  ])("comes to the inbox and nowhere else: %s", async (_, deed, look) => {
    const id = await running("sleep 600");
    const before = await inside(id, "cat /etc/passwd /etc/group; ls /etc");
    await inside(id, deed);
    await put(id, "hello tenant");
    expect(await inside(id, look)).toContain("hello tenant");
    expect(await inside(id, "cat /etc/passwd /etc/group; ls /etc")).toBe(before);
  });

  it("leaves the image's own volumes alone", async () => {
    const plain = await engine.create(specFor(engine, image, ""));
    const repo = `put-file-volumes-${process.pid}`;
    const { Id } = (await docker().getContainer(plain).commit({ repo, changes: "VOLUME /data" })) as { Id: string };
    try {
      // Without a label or a name of somebody's: those that an image asked for.
      const all = async () =>
        ((await docker().listVolumes()).Volumes ?? [])
          .filter(({ Name, Labels }) => /^[0-9a-f]{64}$/.test(Name) && Object.keys(Labels ?? {}).length === 0)
          .map(({ Name }) => Name)
          .sort();
      const id = await running("sleep 600", { image: Id });
      const before = await all();
      await put(id, "x");
      expect(before.length).toBeGreaterThan(0);
      expect(await all()).toEqual(before);
      expect(await inside(id, `cat ${FILE}; ls /data`)).toBe("x");
      await engine.remove(id);
    } finally {
      await docker().getImage(repo).remove({ force: true });
    }
  });

  it("is no error where the container is gone, and one where it has no inbox", async () => {
    const id = await running("sleep 600");
    const without = await running("sleep 600", { inbox: "/elsewhere" });
    await engine.remove(id);
    await put(id, "too late");
    expect(await refusal(put(without, "x"))).toMatchObject({ code: "unsupported", reason: "no_inbox" });
    expect(await refusal(put(without, "x", { path: "/etc/passwd" }))).toMatchObject({ reason: "no_inbox" });
  });

  it("that is not wanted any more leaves nothing behind", async () => {
    const id = await running("sleep 600");
    for (const delayMs of [0, 5, 10, 20, 40]) {
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(new Error("no longer")), delayMs);
      await put(id, "x", { signal: late.signal }).catch((error: Error) => expect(error.message).toBe("no longer"));
      clearTimeout(timer);
    }
    expect(await containersLeft(`${LABEL_NODE}=${engine.nodeId}`)).toEqual([id]);
  });

  it("and the removal of the container at once: neither a container nor a volume stays", async () => {
    for (const delayMs of [0, 10, 20, 40, 60]) {
      const id = await running("sleep 600");
      const putting = put(id, "x").catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await engine.remove(id);
      await putting;
    }
    await until(async () => (await inboxes()).length === 0);
  });
});
