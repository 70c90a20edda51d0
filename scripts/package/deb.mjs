import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { FIRST_CONFIG, unitFor } from "../../src/cli/service-steps.ts";
import { copy, gzipped, put, settle } from "./files.mjs";
import { copyright, putProgram } from "./program.mjs";

const DEBIAN_ARCH = { x64: "amd64", arm64: "arm64" };
const LIB = "/usr/lib/gpunode";
const DOC = "/usr/share/doc/gpunode";
const SCRIPTS = ["preinst", "postinst", "prerm", "postrm"];

/** What the Node of nodejs.org is linked with (objdump -T): glibc 2.28, GLIBCXX_3.4.21, CXXABI_1.3.11, GCC_3.4. */
const NODE_DEPENDS = ["libc6 (>= 2.28)", "libgcc-s1 (>= 3.4)", "libstdc++6 (>= 8)"];
/** systemd-sysusers makes the user; D-Bus tells a restart, which work outlives, from a stop. */
const OWN_DEPENDS = ["systemd (>= 247)", "dbus"];
/** Without the engine nothing runs, and without nft nothing starts unless network.isolate_lan is off. */
const RECOMMENDS = ["docker.io | docker-ce", "nftables"];
const SUGGESTS = ["nvidia-container-toolkit"];

/** Makes `gpunode_VERSION_ARCH.deb` in `outDir`. Returns its path. */
export function makeDeb(work, program, { arch, runtime, epoch, compression, outDir, maintainer }) {
  const { root } = program;
  const tree = join(work, "deb");
  const at = (path) => join(tree, path);
  const version = debianVersion(program.version);
  mkdirSync(tree);
  putProgram(at(LIB), program, { runtime, distribution: "deb" });
  mkdirSync(at("/usr/bin"), { recursive: true });
  symlinkSync("../lib/gpunode/gpunode", at("/usr/bin/gpunode"));

  const unit = unitFor({ node: `${LIB}/node`, entry: `${LIB}/bin/gpunode.js`, hasDocker: true });
  put(at("/usr/lib/systemd/system/gpunode.service"), documented(unit));
  copy(join(root, "packaging/sysusers.conf"), at("/usr/lib/sysusers.d/gpunode.conf"));
  put(at("/usr/share/gpunode/config.toml"), FIRST_CONFIG.replaceAll(/\bdocs\//g, `${DOC}/docs/`));

  for (const name of ["README.md", "SECURITY.md", "docs", "examples"]) copy(join(root, name), at(`${DOC}/${name}`));
  put(at(`${DOC}/copyright`), copyright(program, runtime, { isDebian: true }));
  put(at(`${DOC}/changelog.gz`), gzipped(changelog(root, { version, maintainer, epoch, of: program.version })));
  manualAndCompletions(root, at);
  copy(join(root, "packaging/debian/lintian-overrides"), at("/usr/share/lintian/overrides/gpunode"));

  const installedSize = settle(tree, epoch);
  const sums = md5sums(tree);
  for (const name of SCRIPTS) copy(join(root, "packaging/debian", name), at(`/DEBIAN/${name}`));
  put(at("/DEBIAN/md5sums"), sums);
  put(at("/DEBIAN/control"), control({ version, arch, maintainer, installedSize }));
  settle(tree, epoch);

  const file = join(outDir, `gpunode_${version}_${DEBIAN_ARCH[arch]}.deb`);
  const how = [`-Z${compression}`, "--root-owner-group", "--uniform-compression"];
  execFileSync("dpkg-deb", [...how, "--build", tree, file], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(epoch) },
    stdio: ["ignore", "ignore", "inherit"],
  });
  return file;
}

/** What "dpkg --verify" compares the installed files with. */
function md5sums(tree) {
  const files = readdirSync(tree, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map(({ parentPath, name }) => relative(tree, join(parentPath, name))).sort();
  const sumOf = (path) =>
    createHash("md5")
      .update(readFileSync(join(tree, path)))
      .digest("hex");
  return paths.map((path) => `${sumOf(path)}  ${path}\n`).join("");
}

/** 1.2.0-rc.1 comes before 1.2.0: in Debian's order only with a tilde. */
function debianVersion(version) {
  return version.replace("-", "~");
}

function documented(unit) {
  return unit.replace(/^Description=.*$/m, (line) => `${line}\nDocumentation=file://${DOC}/docs/install.md`);
}

function control({ version, arch, maintainer, installedSize }) {
  return `Package: gpunode
Version: ${version}
Architecture: ${DEBIAN_ARCH[arch]}
Maintainer: ${maintainer}
Installed-Size: ${installedSize}
Depends: ${[...NODE_DEPENDS, ...OWN_DEPENDS].join(", ")}
Recommends: ${RECOMMENDS.join(", ")}
Suggests: ${SUGGESTS.join(", ")}
Section: admin
Priority: optional
Description: lends this machine's GPUs, and takes them back at any moment
 gpunode is a daemon that finds the GPUs of this machine, tells a coordinator
 over a WebSocket what they can do, and runs the containers it is assigned, each
 with GPUs of its own. What was used is metered and signed. The owner sees and
 steers all of it with one command line, and has the GPUs back when wanted:
 what runs is told, saves its work, and goes.
 .
 Node.js is part of this package.
`;
}

/** Debian's form of this version's part of CHANGELOG.md. */
function changelog(root, { version, maintainer, epoch, of }) {
  const sections = readFileSync(join(root, "CHANGELOG.md"), "utf8").split(/^## /m);
  const section = sections.find((text) => text.startsWith(`${of}\n`));
  const points = section?.match(/^- .*$/gm)?.map((point) => point.slice(2)) ?? [`Version ${of}.`];
  const date = new Date(epoch * 1000).toUTCString().replace("GMT", "+0000");
  const lines = points.map((point) => `  * ${wrapped(point)}`).join("\n");
  return `gpunode (${version}) stable; urgency=medium\n\n${lines}\n\n -- ${maintainer}  ${date}\n`;
}

/** Lines of 76 characters at most, indented as a changelog's. */
function wrapped(text) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + word.length < 72) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join("\n    ");
}

function manualAndCompletions(root, at) {
  const [man, completions] = [join(root, "man"), join(root, "completions")];
  if (existsSync(man)) {
    for (const page of readdirSync(man).filter((name) => /\.[1-8]$/.test(name))) {
      put(at(`/usr/share/man/man${page.at(-1)}/${basename(page)}.gz`), gzipped(readFileSync(join(man, page))));
    }
  }
  const places = {
    "gpunode.bash": "/usr/share/bash-completion/completions/gpunode",
    _gpunode: "/usr/share/zsh/vendor-completions/_gpunode",
    "gpunode.fish": "/usr/share/fish/vendor_completions.d/gpunode.fish",
  };
  for (const [name, place] of Object.entries(places)) {
    if (existsSync(join(completions, name))) copy(join(completions, name), at(place));
  }
}
