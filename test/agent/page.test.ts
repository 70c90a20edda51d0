import { once } from "node:events";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { connectLocal } from "../../src/local/client.ts";
import type { History } from "../../src/local/history.ts";
import type { UsageDays } from "../../src/local/usage-days.ts";
import { findBrowser, type Sight, TestBrowser } from "../support/browser.ts";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { patiently, Rig, Site } from "./rig.ts";
import { sh, stays } from "./story.ts";

const found = await findBrowser((line) => console.log(`browser: ${line}`));
const isSeen = !("lacks" in found);
const PATIENCE = { timeout: 30_000 };

/** What the simulated GPUs are busy with. */
function load() {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-load-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const loadFile = join(dir, "load.json");
  const become = (of: object) => {
    writeFileSync(`${loadFile}.new`, JSON.stringify(of));
    renameSync(`${loadFile}.new`, loadFile);
  };
  become({});
  return { become, scenario: JSON.stringify({ gpus: [{ model: "rtx-4090", count: 2 }], loadFile }) };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

function own(rig: Rig) {
  return connectLocal(join(rig.dir, "run/gpunode.sock"));
}

async function ask<T>(url: string): Promise<T> {
  return (await (await fetch(url)).json()) as T;
}

describe.runIf(haveEngine && isSeen)(
  isSeen ? "the page in Chromium" : `the page (not tried: ${found.lacks})`,
  { timeout: 120_000 },
  () => {
    let browser: TestBrowser;
    beforeAll(async () => {
      browser = await TestBrowser.start(found);
    });
    afterAll(() => browser[Symbol.asyncDispose]());

    const open = async (url: string): Promise<Sight> => {
      const sight = await browser.open(url);
      onTestFinished(() => sight.page.context().close());
      return sight;
    };
    const isFrom = ({ requests }: Sight, url: string) =>
      expect(requests.filter((request) => !request.startsWith(url))).toEqual([]);

    test("shows GPUs and their load, a job from its beginning to its end, and how its GPU is taken back", async () => {
      const { become, scenario } = load();
      const image = await pushImage("agent/page:1", await smallImage());
      await using site = await Site.open({ scenario, listen: "127.0.0.1:0" });
      const url = site.rig.status().page ?? "";
      expect(site.rig.gpunode("status").stdout).toContain(`page         ${url}\n`);
      const sight = await open(url);
      const { page } = sight;
      const cards = page.locator("article.gpu");
      await expect.poll(() => cards.count(), PATIENCE).toBe(2);
      expect(await page.locator("h1").textContent()).toBe("rig");
      expect(await cards.first().locator("h3").textContent()).toBe("0 NVIDIA GeForce RTX 4090");
      await page.locator("header.head", { hasText: "connected" }).waitFor();

      become({ "1": { utilizationPercent: 73, vramUsedMiB: 9_100 } });
      const second = cards.nth(1).locator(".value");
      await expect.poll(() => second.first().textContent(), PATIENCE).toBe("73 %");
      await expect.poll(() => second.nth(1).textContent(), PATIENCE).toBe("8.9/24.0 GiB");

      // It does not heed the signal: it is there for as long as it may be.
      const command = sh("trap '' TERM; while :; do sleep 0.1; done");
      await site.client.submit({ id: "train", image, command, gpus: { count: 1 }, stop: { graceSeconds: 90 } });
      const row = page.locator(".workloads tbody tr", { hasText: "train" });
      await row.locator(".state.running").waitFor(PATIENCE);
      const held = (await site.client.workload("train")).gpus[0];
      const index = site.rig.status().gpus.findIndex(({ uuid }) => uuid === held);
      await cards.nth(index).locator(".holder", { hasText: "train" }).waitFor();
      await cards
        .nth(1 - index)
        .locator(".holder", { hasText: "free" })
        .waitFor();

      await own(site.rig).reclaim({ gpus: [String(index)], forMs: 7_200_000 });
      await row.locator(".notice", { hasText: /^gone in \d+ (s|min.*): taken back by its owner/ }).waitFor(PATIENCE);
      await cards
        .nth(index)
        .locator(".holder", { hasText: /train.*→.*owner until \d\d:\d\d/ })
        .waitFor();
      await page.locator(".holds", { hasText: `GPU ${index}: taken back by its owner, until` }).waitFor();
      await own(site.rig).reclaim({ gpus: [String(index)], forMs: 7_200_000, graceSeconds: 0 });
      await row.locator(".state.preempted").waitFor(PATIENCE);
      await own(site.rig).resume();
      await page.locator(".holds").waitFor({ ...PATIENCE, state: "detached" });

      // What the page asks for beside that: who had it, what happened, what it used.
      const { series, spans, marks, host } = await ask<History>(`${url}v1/history?hours=1`);
      expect(spans).toEqual([expect.objectContaining({ workload: "train", gpus: [held], toMs: expect.any(Number) })]);
      expect(marks.map(({ kind, state }) => `${kind} ${state}`)).toEqual([
        "node started",
        "node draining",
        "preemption notice",
        "node available",
      ]);
      const busy = series[site.rig.status().gpus[1]?.uuid ?? ""];
      expect(Math.max(...(busy?.max.vramUsedMiB ?? []).map(Number))).toBe(9_100);
      expect(Math.max(...(busy?.max.utilizationPercent ?? []).map(Number))).toBe(73);
      expect(host.cpuPercent.some((value) => value !== null)).toBe(true);
      expect(await own(site.rig).history({ hours: 1 })).toMatchObject({ spans });
      const used = await ask<UsageDays>(`${url}v1/usage-days`);
      expect(used.days).toHaveLength(7);
      expect(used.days.at(-1)).toMatchObject({ gpuSeconds: expect.any(Number), records: expect.any(Number) });
      expect(used.days.reduce((sum, { records }) => sum + records, 0)).toBeGreaterThan(0);
      expect(used.unverified).toBe(0);
      isFrom(sight, url);
      expect(sight.faults).toEqual([]);
    });

    test("says that the daemon is gone, keeps what it knows, and goes on with the next one", async () => {
      const { become, scenario } = load();
      const port = await freePort();
      await using rig = new Rig({ scenario, listen: `127.0.0.1:${port}` });
      rig.start();
      const url = (await rig.until(({ page }) => page !== undefined)).page ?? "";
      const sight = await open(url);
      const { page } = sight;
      const value = page.locator("article.gpu").first().locator(".value").first();
      become({ "0": { utilizationPercent: 55 } });
      await expect.poll(() => value.textContent(), PATIENCE).toBe("55 %");
      const silence = page.getByRole("status");
      expect(await silence.textContent()).toBe("");
      expect(sight.faults).toEqual([]);

      await rig.end("SIGKILL");
      await page.getByText(/The daemon does not answer, since \d\d:\d\d:\d\d/).waitFor(PATIENCE);
      expect(await silence.textContent()).toMatch(/What you see is from \d\d:\d\d:\d\d/);
      expect(await value.textContent()).toBe("55 %");

      become({ "0": { utilizationPercent: 20 } });
      rig.start();
      await expect.poll(() => silence.textContent(), PATIENCE).toBe("");
      await expect.poll(() => value.textContent(), PATIENCE).toBe("20 %");
      // That nobody answered is all it had to complain about.
      expect(sight.faults.filter((fault) => !fault.includes("ERR_CONNECTION_REFUSED"))).toEqual([]);
      isFrom(sight, url);
    });
  },
);

describe.runIf(haveEngine)("what the page asks for", () => {
  test("is kept over the daemon's end, and is refused in words where the question is wrong", async () => {
    const { become, scenario } = load();
    const image = await pushImage("agent/page:1", await smallImage());
    await using site = await Site.open({ scenario, listen: "127.0.0.1:0" });
    become({ "*": { utilizationPercent: 42 } });
    await site.client.submit({ id: "stays", image, command: stays, gpus: { count: 1 } });
    await site.reaches("stays", "running");
    // While it runs the GPUs are sampled, also where nobody looks.
    const known = (history: History) =>
      Object.values(history.series).every(({ max }) => max.utilizationPercent.some((each) => each === 42));
    await patiently(async () => known(await own(site.rig).history({ hours: 6 })) || undefined);
    const [before] = (await own(site.rig).history({ hours: 1 })).spans;
    expect(before).toMatchObject({ workload: "stays", generation: 1 });
    expect(before?.toMs).toBeUndefined();

    expect(await site.rig.end("SIGTERM")).toBe(0);
    site.rig.start();
    await site.rig.until(({ connection }) => connection.state === "connected");
    const after = await own(site.rig).history({ hours: 24 });
    expect(known(after)).toBe(true);
    expect(after.spans).toEqual([before]);
    expect(after.marks.filter(({ state }) => state === "started")).toHaveLength(2);

    const url = site.rig.status().page ?? "";
    const refused = await fetch(`${url}v1/history?hours=25`);
    expect([refused.status, await refused.text()]).toEqual([400, "hours=25: expected a whole number from 1 to 24\n"]);
    await expect(own(site.rig).history({ hours: 0 })).rejects.toMatchObject({
      code: "bad_message",
      message: "hours=0: expected a whole number from 1 to 24",
    });
    await site.client.release("stays");
    await site.ends("stays");
  });
});
