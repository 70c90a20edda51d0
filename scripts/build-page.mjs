import { copyFileSync, mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { build } from "esbuild";

const root = resolve(import.meta.dirname, "..");

/**
 * Bundles what a browser is given into `outdir`, or only says what would be written there (`write: false`). Returns esbuild's result,
 * with its account of what went into what.
 */
export async function bundlePage({ outdir, write = true }) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [
      { in: "src/local/page/main.tsx", out: "page" },
      { in: "src/local/page/page.css", out: "page" },
    ],
    outdir,
    write,
    metafile: true,
    bundle: true,
    format: "esm",
    platform: "browser",
    // What its CSS and JavaScript need was in all of them by March 2024.
    target: ["chrome116", "firefox124", "safari17.4"],
    minify: true,
    jsx: "automatic",
    jsxImportSource: "preact",
    logLevel: "warning",
  });
  if (write) {
    mkdirSync(outdir, { recursive: true });
    for (const name of ["index.html", "icon.svg"])
      copyFileSync(resolve(root, "src/local/page", name), resolve(outdir, name));
  }
  return result;
}
