import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const haveOpenssl = spawnSync("openssl", ["version"]).status === 0;

export interface Certificate {
  cert: string;
  key: string;
  certFile: string;
  keyFile: string;
}

/**
 * A self-signed certificate in this folder, which is its own CA; for a DNS name or an IP address. `valid` are its first and last day, as
 * `20200131`; from now on for two days where absent.
 */
export function makeCertificate(dir: string, name: string, valid?: readonly [string, string]): Certificate {
  mkdirSync(dir, { recursive: true });
  const [certFile, keyFile, requestFile] = ["cert.pem", "key.pem", "request.pem"].map((file) => join(dir, file)) as [
    string,
    string,
    string,
  ];
  const names = `subjectAltName=${/^[\d.]+$/.test(name) ? "IP" : "DNS"}:${name}`;
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile];
  const request = ["req", ...key, "-subj", `/CN=${name}`];
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: dir, stdio: "ignore" });
  if (valid === undefined) openssl(...request, "-x509", "-days", "2", "-addext", names, "-out", certFile);
  else {
    openssl(...request, "-out", requestFile);
    const config = `[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\nx509_extensions = e\n[p]\ncommonName = supplied\n[e]\n${names.replace("=", " = ")}\n`;
    for (const [file, text] of Object.entries({ "ca.conf": config, index: "", serial: "01\n" })) {
      writeFileSync(join(dir, file), text);
    }
    const [from, to] = valid.map((day) => `${day}000000Z`) as [string, string];
    const days = ["-startdate", from, "-enddate", to];
    openssl(
      "ca",
      "-batch",
      "-config",
      "ca.conf",
      "-selfsign",
      "-keyfile",
      keyFile,
      "-in",
      requestFile,
      ...days,
      "-out",
      certFile,
    );
  }
  return { cert: readFileSync(certFile, "utf8"), key: readFileSync(keyFile, "utf8"), certFile, keyFile };
}
