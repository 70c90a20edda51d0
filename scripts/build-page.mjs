import { resolve } from "node:path";
import { build } from "esbuild";

const root = resolve(import.meta.dirname, "..");

/**
 * Bundles what a browser is given into `outdir`, or only says what would be written there (`write: false`). Returns esbuild's result,
 * with its account of what went into what.
 */
export async function bundlePage({ outdir, write = true }) {
  return await build({
    absWorkingDir: root,
    entryPoints: [
      { in: "src/local/page/index.html", out: "index" },
      { in: "src/local/page/icon.svg", out: "icon" },
      { in: "src/local/page/page.css", out: "page" },
      { in: "src/local/page/main.tsx", out: "page" },
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
    loader: { ".html": "copy", ".svg": "copy" },
    logLevel: "warning",
  });
}
