import axe from "axe-core";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Snapshot } from "../../../src/local/snapshot.ts";
import { findBrowser, type Sight, TestBrowser } from "../../support/browser.ts";
import { ago, gpu, node, type Stage, stage, UUIDS, workload } from "./stage.ts";

const found = await findBrowser((line) => console.log(`browser: ${line}`));
const name = "lacks" in found ? `the page (not tried: ${found.lacks})` : "the page in Chromium";

const first = UUIDS[0] ?? "";
const instances = ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"].map((profile, at) => ({
  uuid: `MIG-${at}`,
  profile,
  vramMiB: 4_864 * (4 - at),
  gpuInstanceId: at,
  computeInstanceId: 0,
  ...(at < 2 && { allocatedTo: `slice-${at}` }),
}));

/** Nodes as they may come. */
const NODES: Record<string, () => Snapshot> = {
  "a node at work": () => node(),
  "a node without a GPU": () => node({ gpus: [], workloads: [] }),
  "a node in trouble": () =>
    node({
      connection: {
        url: "wss://coordinator.example/v1/agent",
        state: "waiting",
        since: ago(1),
        lastError: "connect ECONNREFUSED 192.0.2.1:443",
        retryAt: ago(-0.01),
        unackedEvents: 14,
      },
      problems: [
        { code: "state_refused", message: "the state database cannot be written: make room", since: ago(0.1) },
      ],
      lastError: { message: "workload train failed: exit code 3", at: ago(0.2) },
      gpus: [
        gpu(0, {
          health: { status: "failed", reasons: [{ code: "xid_79", message: "it has fallen off the bus: reboot" }] },
          telemetry: { uuid: first },
        }),
        gpu(1, {
          health: { status: "degraded", reasons: [{ code: "hot", message: "it is slowed down: clean its fans" }] },
        }),
      ],
    }),
  "a node that is taken back": () =>
    node({
      node: { ...node().node, state: "draining" },
      holds: [{ cause: "owner", message: "taken back by its owner", gpus: [first], since: ago(0), until: ago(-2) }],
      workloads: [
        workload("train", {
          state: "stopping",
          gpus: [first],
          notice: { cause: "owner", message: "taken back by its owner", deadline: ago(-0.01) },
        }),
        workload("next", { state: "pulling", pull: { currentBytes: 7e9, totalBytes: 12e9 } }),
      ],
    }),
  "a board in slices": () =>
    node({
      gpus: [gpu(0, { name: "NVIDIA A100-SXM4-40GB", mig: { enabled: true, instances } })],
      workloads: [workload("slice-0", { gpus: ["MIG-0"] }), workload("slice-1", { gpus: ["MIG-1"] })],
    }),
  "sixteen GPUs and fifty workloads with long names": () =>
    node({
      node: { ...node().node, name: `rig-${"long".repeat(40)}` },
      gpus: Array.from({ length: 16 }, (_, index) => gpu(index, { name: `NVIDIA ${"RTX ".repeat(index)}4090` })),
      workloads: Array.from({ length: 50 }, (_, n) =>
        workload(`${"w".repeat(60)}-${n}`, {
          image: `registry.example/${"team/".repeat(20)}image@sha256:${"0".repeat(64)}`,
          gpus: [gpu(n % 16).uuid],
          ...(n > 20 && { state: "failed", finishedAt: ago(1), message: "no ".repeat(80), exitCode: 3 }),
        }),
      ),
    }),
};

describe.skipIf("lacks" in found)(name, { timeout: 120_000 }, () => {
  let browser: TestBrowser;
  let show: Stage;
  beforeAll(async () => {
    browser = await TestBrowser.start(found);
    show = await stage();
  });
  afterAll(async () => {
    await browser[Symbol.asyncDispose]();
    await show[Symbol.asyncDispose]();
  });
  /** The page of such a node. */
  const open = async (snapshot: Snapshot, options: Parameters<TestBrowser["open"]>[1] = {}) => {
    show.snapshot = snapshot;
    const sight = await browser.open(show.url, options);
    onTestFinished(() => sight.page.context().close());
    return sight;
  };

  /** Nothing was asked of anybody else, and nothing went wrong. */
  const isClean = ({ requests, faults }: Sight) => {
    expect(requests.filter((request) => !request.startsWith(show.url))).toEqual([]);
    expect(faults).toEqual([]);
  };
  const widthBeyond = ({ page }: Sight) =>
    page.evaluate(() => {
      const { scrollWidth, clientWidth } = (
        globalThis as unknown as { document: { documentElement: Record<string, number> } }
      ).document.documentElement;
      return (scrollWidth ?? 0) - (clientWidth ?? 0);
    });
  const drawn = ({ page }: Sight) => page.locator(".card").first().waitFor();

  describe.each(Object.keys(NODES))("%s", (which) => {
    const make = NODES[which] ?? node;

    it.each(["light", "dark"] as const)("can be read by everybody, %s", async (colorScheme) => {
      const sight = await open(make(), { colorScheme, reducedMotion: "reduce" });
      await drawn(sight);
      await sight.page.locator(".sum", { hasText: "signed" }).waitFor();
      await sight.page.evaluate(axe.source);
      const { violations, passes } = await sight.page.evaluate(() =>
        (globalThis as unknown as { axe: typeof axe }).axe.run({
          runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        } as axe.RunOptions),
      );
      const told = violations.map(
        ({ id, help, nodes }) => `${id}: ${help}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`,
      );
      expect(told).toEqual([]);
      expect(passes.map(({ id }) => id)).toContain("color-contrast");
      isClean(sight);
    });

    it("fits where there is little room", async () => {
      for (const width of [1200, 760, 390, 320]) {
        const sight = await open(make(), { viewport: { width, height: 800 } });
        await drawn(sight);
        await sight.page.locator(".sum", { hasText: "signed" }).waitFor();
        expect(await widthBeyond(sight), `${width} px`).toBeLessThanOrEqual(0);
        isClean(sight);
      }
    });
  });

  it("shows what others have named as text, whatever it says", async () => {
    const evil = `<img src=x onerror="gpunodeViolation('run')"><script>gpunodeViolation('run')</script>"'&lt;\u202e`;
    const sight = await open(
      node({
        node: { ...node().node, name: evil },
        gpus: [gpu(0, { name: evil, health: { status: "failed", reasons: [{ code: "x", message: evil }] } })],
        holds: [{ cause: "foreign_process", message: evil, since: ago(1) }],
        problems: [{ code: "x", message: evil }],
        lastError: { message: evil, at: ago(1) },
        connection: { url: evil, state: "waiting", since: ago(1), lastError: evil, unackedEvents: 0 },
        workloads: [workload(evil, { gpus: [first], image: evil, message: evil })],
      }),
    );
    await drawn(sight);
    await sight.page.locator("details summary").click();
    expect(await sight.page.locator("h1").textContent()).toBe(evil);
    expect(await sight.page.locator("h3").textContent()).toContain(evil);
    expect(await sight.page.locator("#page img, #page script").count()).toBe(0);
    isClean(sight);
  });

  it("goes through the time with the arrow keys, and back to now", async () => {
    const { page } = await open(node());
    const chart = page.getByRole("slider", { name: /^GPU 0/ });
    const value = page.locator("article.gpu").first().locator(".meter.util .value");
    await page.locator(".band li").first().waitFor();
    expect(await value.textContent()).toBe("97 %");
    await chart.focus();
    expect(await chart.getAttribute("aria-valuetext")).toContain("now, utilization 97 percent");
    await page.keyboard.press("Home");
    await expect.poll(() => chart.getAttribute("aria-valuetext")).toMatch(/^\d\d:\d\d, utilization/);
    for (let n = 0; n < 12; n++) await page.keyboard.press("ArrowRight");
    // An hour after the beginning it was at work on what it was given then.
    await expect.poll(async () => Number.parseInt((await value.textContent()) ?? "", 10)).toBeGreaterThan(80);
    expect(await page.locator("article.gpu").first().locator(".holder").textContent()).toContain("llama-finetune");
    await page.keyboard.press("Escape");
    await expect.poll(() => value.textContent()).toBe("97 %");
  });

  it("shows the hours that are chosen, and again when it is loaded again", async () => {
    const { page, requests } = await open(node());
    await page.getByRole("radio", { name: "24 h" }).waitFor();
    expect(await page.getByRole("radio", { name: "24 h" }).isChecked()).toBe(true);
    await page.getByRole("radio", { name: "1 h", exact: true }).check();
    await page.getByRole("slider", { name: /^GPU 0 over the last hour/ }).waitFor();
    await expect.poll(() => requests.some((request) => request.endsWith("/v1/history?hours=1"))).toBe(true);
    await page.reload();
    await page.getByRole("slider", { name: /^GPU 0 over the last hour/ }).waitFor();
    expect(await page.getByRole("radio", { name: "1 h", exact: true }).isChecked()).toBe(true);
  });

  it("asks nothing while nobody sees it, and at once when somebody does", async () => {
    const { page } = await open(node());
    await page.locator("article.gpu").first().waitFor();
    const become = (state: string) =>
      page.evaluate((visibilityState) => {
        const { document } = globalThis as unknown as { document: EventTarget };
        Object.defineProperty(document, "visibilityState", { configurable: true, get: () => visibilityState });
        document.dispatchEvent(new Event("visibilitychange"));
      }, state);
    await become("hidden");
    // One may be under way; then there is none for longer than two are apart.
    const newLooks = async () => {
      const before = show.looks;
      await page.waitForTimeout(5_000);
      return show.looks - before;
    };
    await expect.poll(newLooks, { timeout: 30_000 }).toBe(0);
    const before = show.looks;
    await become("visible");
    await expect.poll(() => show.looks, { timeout: 20_000 }).toBeGreaterThan(before);
  });

  it("takes a new daemon's own page", async () => {
    const { page, requests } = await open(node());
    await page.locator("article.gpu").first().waitFor();
    show.snapshot = node({ node: { ...node().node, version: "0.2.0" } });
    await expect.poll(() => requests.filter((request) => request === show.url).length, { timeout: 20_000 }).toBe(2);
    await page.locator(".version", { hasText: "0.2.0" }).waitFor();
  });

  it("tells which command acts, to copy", async () => {
    const { page } = await open(NODES["a node that is taken back"]?.() ?? node(), {
      permissions: ["clipboard-read", "clipboard-write"],
    });
    await page.getByRole("button", { name: "Copy gpunode resume --gpu 0" }).click();
    await page.getByText("copied").waitFor();
    const clipboard = () =>
      page.evaluate(() =>
        (
          globalThis as unknown as { navigator: { clipboard: { readText(): Promise<string> } } }
        ).navigator.clipboard.readText(),
      );
    expect(await clipboard()).toBe("gpunode resume --gpu 0");
    expect(await page.locator("form, [method], input:not([type=radio])").count()).toBe(0);
  });
});
