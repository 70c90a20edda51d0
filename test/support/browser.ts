import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { findOrUnpack, findProgram, TestbedUnavailableError } from "../../src/demo/debian-packages.ts";

const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
/** As they are called where somebody has installed one. */
const INSTALLED = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/** Debian's package for machines without a screen: 100 MB with what it needs, fetched once. */
const HEADLESS = "chromium-headless-shell";
const MARK = "GPUNODE_TEST_BROWSER";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Whatever it would ask outside, it cannot.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

/** A Chromium and what it runs with; `lacks` says in one sentence why there is none. */
export type BrowserFound = { executablePath: string; env: NodeJS.ProcessEnv } | { lacks: string };

/** The one that is installed; else Debian's, unpacked and kept beside the engine of the tests. */
export async function findBrowser(log: (line: string) => void): Promise<BrowserFound> {
  for (const name of INSTALLED) {
    const executablePath = await findProgram(name);
    if (executablePath !== undefined) return { executablePath, env: {} };
  }
  try {
    const { paths, env } = await findOrUnpack(
      { [HEADLESS]: HEADLESS },
      {
        dir: PACKAGES_DIR,
        log,
        also: ["fonts-inter", "fonts-dejavu-core"],
        remedy: "Install Chromium and start again.",
      },
    );
    const root = resolve(dirname(paths[HEADLESS] ?? ""), "../..");
    const libraries = (env.LD_LIBRARY_PATH ?? "").split(delimiter).filter((folder) => folder !== "");
    return {
      // The program on the PATH is a script that looks for it in /usr.
      executablePath: join(root, "usr/lib/chromium", HEADLESS),
      env: {
        LD_LIBRARY_PATH: libraries.flatMap((folder) => [folder, join(folder, "pulseaudio")]).join(delimiter),
        FONTCONFIG_FILE: fontsOf(root),
      },
    };
  } catch (error) {
    if (error instanceof TestbedUnavailableError) return { lacks: error.message };
    return { lacks: `Debian's package ${HEADLESS} could not be had: ${(error as Error).message}` };
  }
}

/** Text looks the same on every machine; one without a font would show none. */
function fontsOf(root: string): string {
  const path = join(root, "fonts.conf");
  const alias = (family: string, font: string) =>
    `<alias binding="strong"><family>${family}</family><prefer><family>${font}</family></prefer></alias>`;
  writeFileSync(
    path,
    `<?xml version="1.0"?><fontconfig><dir>${root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>${root}/fonts-cache</cachedir>
${alias("system-ui", "Inter")}${alias("sans-serif", "Inter")}${alias("monospace", "DejaVu Sans Mono")}</fontconfig>\n`,
  );
  return path;
}

/** A Chromium of its own, with a new profile; closing it proves that no process of it is left. */
export class TestBrowser implements AsyncDisposable {
  readonly #browser: Browser;
  readonly #mark: string;
  readonly #home: string;

  private constructor(browser: Browser, mark: string, home: string) {
    this.#browser = browser;
    this.#mark = mark;
    this.#home = home;
  }

  static async start(found: BrowserFound): Promise<TestBrowser> {
    if ("lacks" in found) throw new Error(found.lacks);
    const mark = randomUUID();
    const home = mkdtempSync(join(tmpdir(), "gpunode-browser-"));
    const browser = await chromium.launch({
      executablePath: found.executablePath,
      args: FLAGS,
      env: { ...process.env, ...found.env, HOME: home, [MARK]: mark },
    });
    return new TestBrowser(browser, mark, home);
  }

  /** A page in a context of its own, and whatever goes wrong in it. */
  async open(url: string, options: BrowserContextOptions = {}): Promise<Sight> {
    const context = await this.#browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
    const page = await context.newPage();
    const sight: Sight = { page, requests: [], faults: [] };
    page.on("request", (request) => void sight.requests.push(request.url()));
    page.on("pageerror", (error) => void sight.faults.push(`error: ${error.message}`));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") sight.faults.push(`console: ${message.text()}`);
    });
    await page.exposeFunction("gpunodeViolation", (text: string) => void sight.faults.push(`CSP: ${text}`));
    await page.addInitScript(() => {
      const target = globalThis as unknown as EventTarget & { gpunodeViolation(text: string): void };
      target.addEventListener("securitypolicyviolation", (event) => {
        const { violatedDirective, blockedURI } = event as Event & Record<string, string>;
        target.gpunodeViolation(`${violatedDirective} ${blockedURI}`);
      });
    });
    await page.goto(url);
    return sight;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
    for (let tries = 0; tries < 100 && processesWith(this.#mark).length > 0; tries++) await sleep(50);
    const left = processesWith(this.#mark);
    rmSync(this.#home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`the browser is closed, and processes ${left.join(", ")} of it are left`);
  }
}

/** What a browser shows of a page, and what it did. */
export interface Sight {
  page: Page;
  /** Every URL it asked for. */
  requests: string[];
  /** Errors of scripts, console and content security policy. */
  faults: string[];
}

function processesWith(mark: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${MARK}=${mark}`);
    } catch {
      return false;
    }
  });
}
