// Bundles the two commands: dist/gpunode.js and dist/nvidia-smi-sim.js, with what is loaded late in chunks of its own; and dist/page,
// what a browser is given.
// node scripts/build.mjs [folder instead of dist]
import { readFileSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { build } from "esbuild";
import { bundlePage } from "./build-page.mjs";

const root = resolve(import.meta.dirname, "..");

/**
 * What dockerode and docker-modem load for engines reached over SSH and for BuildKit sessions. gpunode speaks to a unix
 * socket and builds nothing: left out, this saves half of the memory and time of a start.
 */
const NEVER_USED = /^(ssh2|@grpc\/grpc-js|@grpc\/proto-loader|protobufjs)$/;
const leaveOut = {
  name: "leave-out",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: NEVER_USED }, ({ path }) => ({ path, namespace: "left-out" }));
    onLoad({ filter: /./, namespace: "left-out" }, ({ path }) => ({
      contents: `
        function leftOut() { throw new Error(${JSON.stringify(`${path} is not part of gpunode: it reaches the Docker engine through a unix socket only`)}); }
        module.exports = new Proxy({}, { get: () => leftOut });`,
    }));
  },
};

/**
 * Bundles into `outdir`, or only says what would be written there (`write: false`). `version` is the one it then tells. Returns
 * esbuild's result, with its account of what went into what.
 */
export async function bundle({ outdir, version, write = true }) {
  return await build({
    absWorkingDir: root,
    entryPoints: { gpunode: "src/cli/main.ts", "nvidia-smi-sim": "src/gpu/simulator/main.ts" },
    outdir,
    write,
    metafile: true,
    chunkNames: "chunks/[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node24",
    sourcemap: "linked",
    sourcesContent: false,
    minifySyntax: true,
    define: { GPUNODE_VERSION: JSON.stringify(version) },
    // CommonJS packages ask for Node's own modules with require, which ES modules do not have.
    banner: {
      js: 'import { createRequire as createRequireOfBundle } from "node:module"; const require = createRequireOfBundle(import.meta.url);',
    },
    plugins: [leaveOut],
    logLevel: "warning",
  });
}

if (import.meta.main) {
  const outdir = resolve(root, process.argv[2] ?? "dist");
  rmSync(outdir, { recursive: true, force: true });
  const { version } = JSON.parse(readFileSync(resolve(root, "package.json"), "utf8"));
  await bundle({ outdir, version });
  await bundlePage({ outdir: resolve(outdir, "page") });
}
