import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Texts for packages that name a licence and bring no file with it. */
const TEXTS = {
  ISC: (holder) => `Copyright (c) ${holder}

Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY
AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM
LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR
PERFORMANCE OF THIS SOFTWARE.`,
};

/**
 * The packages that ended in the bundle, from esbuild's account of it, with their licences: `[{ name, version, license, text }]` by name.
 * Throws where one of them comes without a licence that could be passed on with it.
 */
export function bundledPackages(root, metafile) {
  const folders = new Set();
  for (const { inputs } of Object.values(metafile.outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      // Made up by the build ("left-out:ssh2"): nobody's file.
      if (/^[a-z-]+:/.test(path)) continue;
      const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0];
      if (bytesInOutput > 0 && folder !== undefined) folders.add(folder);
    }
  }
  const found = [...folders].map((folder) => packageIn(join(root, folder)));
  const byId = new Map(found.map((one) => [`${one.name} ${one.version}`, one]));
  return [...byId.keys()].sort().map((id) => byId.get(id));
}

function packageIn(folder) {
  const { name, version, license, author } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const files = readdirSync(folder)
    .filter((file) => /^(?:licen[cs]e|copying|notice)(?:\.(?:md|txt))?$/i.test(file))
    .sort();
  const texts = files.map((file) => readFileSync(join(folder, file), "utf8"));
  const holder = typeof author === "string" ? author : author?.name;
  if (texts.length === 0 && holder !== undefined && TEXTS[license] !== undefined) texts.push(TEXTS[license](holder));
  if (texts.length === 0) {
    throw new Error(
      `${name} ${version} is part of the bundle and has no licence file: add its text to scripts/package/bundled-licences.mjs`,
    );
  }
  return { name, version, license, text: texts.map(tidied).join("\n\n") };
}

/** One text for each licence, with the packages under it: of the same text only one copy. */
export function licenceTexts(packages) {
  const byText = new Map();
  for (const { name, version, license, text } of packages) {
    const sharing = byText.get(text) ?? { license, names: [] };
    sharing.names.push(`${name} ${version}`);
    byText.set(text, sharing);
  }
  return [...byText].map(([text, { license, names }]) => `${names.join(", ")}\nLicence: ${license}\n\n${text}`);
}

function tidied(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  return lines
    .map((line) => line.trimEnd())
    .join("\n")
    .replace(/^\n+|\n+$/g, "");
}
