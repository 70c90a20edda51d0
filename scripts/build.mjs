// Bundles the two commands: dist/gpunode.js and dist/nvidia-smi-sim.js, with what is loaded late in chunks of its own.
// node scripts/build.mjs [folder instead of dist]
import { readFileSync, rmSync } from "node:fs";
import { isBuiltin } from "node:module";
import { resolve } from "node:path";
import { build } from "esbuild";

const root = resolve(import.meta.dirname, "..");
const { version } = JSON.parse(readFileSync(resolve(root, "package.json"), "utf8"));

/**
 * What dockerode and docker-modem load for engines reached over SSH, for BuildKit sessions and for building images. gpunode speaks to a
 * unix socket and builds nothing: left out, this saves half of the memory and time of a start.
 */
const NEVER_USED = /^(ssh2|@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|tar-fs|@balena\/dockerignore)$/;
const leaveOut = {
  name: "leave-out",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: NEVER_USED }, ({ path }) => ({ path, namespace: "left-out" }));
    onLoad({ filter: /./, namespace: "left-out" }, ({ path }) => ({
      contents: `
        function leftOut() { throw new Error(${JSON.stringify(`${path} is not part of gpunode: it reaches the Docker engine through a unix socket only, and builds no images`)}); }
        module.exports = new Proxy({}, { get: () => leftOut });`,
    }));
    // Its error messages in fifty languages; nobody chooses one.
    onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: 'export { default as en } from "./en.js";',
    }));
  },
};

/**
 * Node's own modules, taken as CommonJS modules take them. An ES import reads every export of a module, also those that Node makes only
 * when they are asked for: of `node:http` that is a WebSocket client with all of undici, 17 ms and 14 MiB that nobody here uses.
 */
const nodeModules = {
  name: "node-modules",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /./ }, ({ path, kind }) => {
      // docker-modem brings streams along that Node has had for years.
      if (path === "readable-stream") return { path: "stream", namespace: "node-module" };
      if (kind !== "import-statement" || !isBuiltin(path)) return;
      return { path: path.replace(/^node:/, ""), namespace: "node-module" };
    });
    onLoad({ filter: /./, namespace: "node-module" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(`node:${path}`)});`,
    }));
  },
};

const outdir = resolve(root, process.argv[2] ?? "dist");
rmSync(outdir, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: { gpunode: "src/cli/main.ts", "nvidia-smi-sim": "src/gpu/simulator/main.ts" },
  outdir,
  chunkNames: "chunks/[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node24",
  sourcemap: "linked",
  sourcesContent: false,
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 160,
  define: { GPUNODE_VERSION: JSON.stringify(version) },
  // CommonJS packages ask for Node's own modules with require, which ES modules do not have.
  banner: {
    js: 'import { createRequire as createRequireOfBundle } from "node:module"; const require = createRequireOfBundle(import.meta.url);',
  },
  plugins: [leaveOut, nodeModules],
  logLevel: "warning",
});
