// Bundles the commands: dist/gpunode.js and dist/nvidia-smi-sim.js, with what is loaded late in chunks of its own; dist/daemon.js, all of
// "gpunode run"; and dist/page, what a browser is given.
// node scripts/build.mjs [folder instead of dist]
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, resolve } from "node:path";
import { build } from "esbuild";
import { parseSync } from "oxc-parser";
import { bundlePage } from "./build-page.mjs";

const root = resolve(import.meta.dirname, "..");

/**
 * What dockerode and docker-modem load for engines reached over SSH, for BuildKit sessions and for building images, and pino for writing its
 * lines in a thread of their own. gpunode speaks to a unix socket, builds nothing, and writes its lines itself: left out, this saves half
 * of the memory and time of a start.
 */
const NEVER_USED = /^(ssh2|@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|tar-fs|@balena\/dockerignore|thread-stream)$/;
const leaveOut = {
  name: "leave-out",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: NEVER_USED }, ({ path }) => ({ path, namespace: "left-out" }));
    onLoad({ filter: /./, namespace: "left-out" }, ({ path }) => ({
      contents: `
        function leftOut() { throw new Error(${JSON.stringify(`${path} is not part of gpunode: it reaches the Docker engine through a unix socket only, builds no images, and writes its log itself`)}); }
        module.exports = new Proxy({}, { get: () => leftOut });`,
    }));
    // Its debug log, which is off: for each line it first writes out, to any depth, what it sends and what it sends it with.
    onResolve({ filter: /^debug$/ }, ({ path }) => ({ path, namespace: "silent" }));
    onLoad({ filter: /./, namespace: "silent" }, () => ({ contents: "module.exports = () => () => undefined;" }));
    onLoad({ filter: /\/docker-modem\/lib\/modem\.js$/ }, async ({ path }) => {
      const text = readFileSync(path, "utf8");
      const contents = text.replace(/debug\('Sending: %s', util\.inspect\(options, \{[^}]*\}\)\);/, "");
      if (contents === text)
        throw new Error(`${path} is another than the one whose debug log scripts/build.mjs takes out`);
      return { contents };
    });
    // For coordinators over TLS, compression nobody asks for, mistakes nobody makes. The packages take what they need of them when they
    // need it.
    onResolve({ filter: /^(https|tls|zlib|assert)$/ }, ({ path, kind, importer }) =>
      kind === "require-call" ? { path: `${path}?${importer}`, namespace: "when-needed" } : undefined,
    );
    onLoad({ filter: /./, namespace: "when-needed" }, ({ path }) => ({
      contents: `
        const taken = () => process.getBuiltinModule("${path.split("?")[0]}");
        module.exports = new Proxy(function () {}, { get: (_, name) => taken()[name], apply: (_, self, given) => taken()(...given) });`,
    }));
    // pino asks whether it is in a thread, which nothing here is.
    onResolve({ filter: /^worker_threads$/ }, ({ path, importer }) =>
      /\/pino\/lib\/tools\.js$/.test(importer) ? { path, namespace: "main-thread" } : undefined,
    );
    onLoad({ filter: /./, namespace: "main-thread" }, () => ({ contents: "module.exports = { isMainThread: true };" }));
    // Its tables of letters take 20 ms, and most texts need none of them: evaluated when it is first called.
    onResolve({ filter: /^string-width$/ }, ({ path, namespace }) =>
      namespace === "when-called" ? undefined : { path, namespace: "when-called" },
    );
    onLoad({ filter: /./, namespace: "when-called" }, ({ path }) => ({
      contents: `export default (...given) => require(${JSON.stringify(path)}).default(...given);`,
      resolveDir: root,
    }));
    // docker-modem brings streams along that Node has had for years.
    onResolve({ filter: /^readable-stream$/ }, () => ({ path: "stream", external: true }));
  },
};

/** CommonJS packages ask for Node's own modules with require, which ES modules do not have. */
const BANNER =
  'import { createRequire as createRequireOfBundle } from "node:module"; const require = createRequireOfBundle(import.meta.url);';

/** ws looks for a compiled helper that is not among our packages, along all folders up to the root. */
const WITHOUT_HELPERS = { "process.env.WS_NO_BUFFER_UTIL": '"1"', "process.env.WS_NO_UTF_8_VALIDATE": '"1"' };

/** For every bundle. */
const OPTIONS = {
  absWorkingDir: root,
  write: false,
  metafile: true,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node24",
  sourcemap: "linked",
  sourcesContent: false,
  // Names stay, and lines stay short: a stack trace can be read without the source map. Without comments the text is ASCII,
  // and V8, which keeps it for as long as the program runs, needs half the memory for it.
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 120,
  logLevel: "warning",
};

/**
 * Bundles all of it as for `outdir`, in memory: the commands, with what they load late in chunks of their own; and the daemon, see
 * `asScript`. `version` is the one they then tell. Returns the files with their paths there, and esbuild's account of what went into what.
 */
export async function bundle({ outdir, version }) {
  const define = { ...WITHOUT_HELPERS, GPUNODE_VERSION: JSON.stringify(version) };
  const [commands, daemon] = await Promise.all([
    build({
      ...OPTIONS,
      outdir,
      define,
      banner: { js: BANNER },
      entryPoints: { gpunode: "src/cli/main.ts", "nvidia-smi-sim": "src/gpu/simulator/main.ts" },
      splitting: true,
      chunkNames: "chunks/[name]-[hash]",
      plugins: [leaveOut],
    }),
    build({
      ...OPTIONS,
      outdir,
      define: { ...define, "import.meta.dirname": "folderOfDaemon" },
      entryPoints: { daemon: "src/cli/daemon-main.ts" },
      plugins: [leaveOut],
    }),
  ]);
  const filesOf = ({ outputFiles }, finished) =>
    outputFiles.map(({ path, text }) => ({ path, text: path.endsWith(".js") ? finished(path, text) : text }));
  const files = [
    ...filesOf(commands, withBuiltinsTaken),
    ...filesOf(daemon, (path, text) => asScript(path, withBuiltinsTaken(path, text))),
  ];
  return { files, outputs: { ...commands.metafile.outputs, ...daemon.metafile.outputs } };
}

/**
 * The daemon as a script instead of a module, so that bin/gpunode.js can keep its compiled code as it is when the daemon is up. It is a function
 * of what gives it Node's own modules, its folder, and what keeps the code; the name of this very build stands in its first line.
 */
function asScript(path, text) {
  const { module } = parseSync(path, text);
  const left = [...module.staticImports, ...module.dynamicImports, ...module.staticExports].length;
  if (left > 0) throw new Error(`${path}: a script takes and gives nothing by import and export, and ${left} are left`);
  const name = createHash("sha256").update(text).digest("hex").slice(0, 16);
  // On one line with what was the first: lines stay where the source map has them.
  return `/* ${name} */(function(require,folderOfDaemon,keepCode){"use strict";${text.replace(/(\n\/\/# sourceMappingURL=.*\n?)$/, "\n})$1")}`;
}

if (import.meta.main) {
  const outdir = resolve(root, process.argv[2] ?? "dist");
  rmSync(outdir, { recursive: true, force: true });
  const { version } = JSON.parse(readFileSync(resolve(root, "package.json"), "utf8"));
  const { files } = await bundle({ outdir, version });
  for (const { path, text } of files) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  await bundlePage({ outdir: resolve(outdir, "page") });
}

/**
 * The same program with Node's own modules taken as CommonJS modules take them. An ES import reads every export of a module, also
 * those that Node makes only when they are asked for: of `node:http` that is a WebSocket client with all of undici, 17 ms and 14 MiB
 * that nobody here uses. Lines stay where the source map has them.
 */
function withBuiltinsTaken(path, text) {
  // Where nothing asks for it, its line stays empty.
  if (text.startsWith(BANNER) && !text.includes("require", BANNER.length))
    return withBuiltinsTaken(path, text.slice(BANNER.length));
  const { module, errors } = parseSync(path, text);
  if (errors.length > 0) throw new Error(`${path}: ${errors[0].message}`);
  const taken = (name) => `process.getBuiltinModule(${JSON.stringify(name)})`;
  const edits = [];
  for (const { start, end, moduleRequest, entries } of module.staticImports) {
    if (!isBuiltin(moduleRequest.value)) continue;
    const named = entries.filter(({ importName }) => importName.kind === "Name");
    const whole = entries.filter(({ importName }) => importName.kind !== "Name");
    const names = named.map(({ importName, localName }) => `${importName.name}:${localName.value}`);
    const parts = [
      ...whole.map(({ localName }) => `${localName.value}=${taken(moduleRequest.value)}`),
      ...(names.length === 0 ? [] : [`{${names.join(",")}}=${taken(moduleRequest.value)}`]),
    ];
    edits.push({ start, end, by: parts.length === 0 ? "" : `const ${parts.join(",")};` });
  }
  for (const { start, end, moduleRequest } of module.dynamicImports) {
    const name = /^"([^"]*)"$/.exec(text.slice(moduleRequest.start, moduleRequest.end))?.[1];
    if (name !== undefined && isBuiltin(name)) edits.push({ start, end, by: `Promise.resolve(${taken(name)})` });
  }
  let rewritten = text;
  for (const { start, end, by } of edits.sort((one, other) => other.start - one.start)) {
    const newlines = "\n".repeat(text.slice(start, end).split("\n").length - 1);
    rewritten = `${rewritten.slice(0, start)}${by}${newlines}${rewritten.slice(end)}`;
  }
  return rewritten;
}
