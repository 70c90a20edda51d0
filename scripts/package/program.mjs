import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { bundle } from "../build.mjs";
import { bundlePage } from "../build-page.mjs";
import { bundledPackages, licenceTexts } from "./bundled-licences.mjs";
import { copy, put } from "./files.mjs";

/**
 * What is packaged, the same for every architecture but for its Node: `{ root, version, files, packages }`, `files` being the bundle as
 * esbuild would write it to `dist`, so that nothing in it tells where it was built, and `packages` what is bundled, with licences.
 */
export async function program(root, version) {
  const dist = join(root, "dist");
  const commands = await bundle({ outdir: dist, version });
  const page = await bundlePage({ outdir: join(dist, "page"), write: false });
  const files = [
    ...commands.files.map(({ path, text }) => ({ path: relative(dist, path), contents: text })),
    ...page.outputFiles.map(({ path, contents }) => ({ path: relative(dist, path), contents })),
  ];
  const outputs = { ...commands.outputs, ...page.metafile.outputs };
  return { root, version, files, packages: bundledPackages(root, { outputs }) };
}

/** Writes all that runs into `dir`: Node, the bundle, the two commands. `distribution` is "deb" or "tarball". */
export function putProgram(dir, { root, version, files }, { runtime, distribution }) {
  copy(runtime.node, join(dir, "node"));
  for (const { path, contents } of files) put(join(dir, "dist", path), contents);
  for (const name of ["gpunode", "nvidia-smi-sim"]) {
    const script = readFileSync(join(root, "bin", `${name}.js`), "utf8");
    // Only ever started with the Node beside it.
    put(join(dir, "bin", `${name}.js`), script.replace(/^#!.*\n/, "\n"));
    put(join(dir, name), startScript(`${name}.js`));
  }
  const { name, description, license, type } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const manifest = { name, version, description, license, type, private: true, distribution };
  put(join(dir, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** Documentation, examples, and the manual's page and completions where they are there: `[from, to]` in a tree of documents. */
export function documents(root) {
  const all = ["README.md", "SECURITY.md", "LICENSE", "docs", "examples", "man", "completions"];
  return all.filter((name) => existsSync(join(root, name)));
}

/** gpunode's licence and those of all that comes with it, Node's own last. */
export function copyright({ packages }, runtime, { isDebian }) {
  const own = isDebian
    ? "On Debian systems the full text of the Apache License, Version 2.0, is in /usr/share/common-licenses/Apache-2.0."
    : "The full text of the Apache License, Version 2.0, is in the file LICENSE.";
  const rule = `\n\n${"-".repeat(79)}\n\n`;
  return [
    `gpunode: lends this machine's GPUs\nCopyright contributors of gpunode\nLicence: Apache-2.0\n\n${own}`,
    `Parts of these packages are in the folder dist:\n\n${packages.map(({ name, version, license }) => `  ${name} ${version} (${license})`).join("\n")}`,
    ...licenceTexts(packages),
    `Node.js ${runtime.version}, the program "node", unchanged as its makers publish it\n\n${readFileSync(runtime.licence, "utf8").trimEnd()}`,
    "",
  ].join(rule);
}

/** Finds itself through links, so that one may stand in a folder of PATH. */
function startScript(script) {
  return `#!/bin/sh
# Runs with the Node that came with it, wherever this folder lies.
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/node" "$here/bin/${script}" "$@"
`;
}
