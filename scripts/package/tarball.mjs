import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { copy, put, settle } from "./files.mjs";
import { copyright, documents, putProgram } from "./program.mjs";

/** Two threads on any machine: another number of blocks would be another file. */
const COMPRESSION = {
  xz: { suffix: ".xz", program: ["xz", "-6", "--threads=2"] },
  gzip: { suffix: ".gz", program: ["gzip", "-9n"] },
  none: { suffix: "", program: undefined },
};

/** Makes `gpunode-VERSION-linux-ARCH.tar.xz` in `outDir`: a folder that runs from wherever it is unpacked. Returns its path. */
export function makeTarball(work, program, { arch, runtime, epoch, compression, outDir }) {
  const { root, version } = program;
  const name = `gpunode-${version}-linux-${arch}`;
  const tree = join(work, name);
  mkdirSync(tree);
  putProgram(tree, program, { runtime, distribution: "tarball" });
  for (const document of documents(root)) copy(join(root, document), join(tree, document));
  copy(join(root, "systemd"), join(tree, "systemd"));
  copy(join(root, "packaging/INSTALL"), join(tree, "INSTALL"));
  put(join(tree, "COPYRIGHT"), copyright(program, runtime, { isDebian: false }));
  settle(tree, epoch);
  const { suffix, program: compressor } = COMPRESSION[compression];
  const file = join(outDir, `${name}.tar${suffix}`);
  const owner = ["--owner=0", "--group=0", "--numeric-owner"];
  const args = ["--create", `--file=${file}`, "--format=gnu", "--sort=name", ...owner, `--mtime=@${epoch}`];
  if (compressor !== undefined) args.push(`--use-compress-program=${compressor.join(" ")}`);
  execFileSync("tar", [...args, `--directory=${work}`, name], { stdio: ["ignore", "inherit", "inherit"] });
  return file;
}
