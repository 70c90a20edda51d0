import type { X509Certificate } from "node:crypto";
import { printable } from "./session-end.ts";

/** For whom, by whom, until when, and the fingerprint its operator can compare. */
export function certificateInWords(certificate: X509Certificate): string {
  const names = namesOf(certificate);
  const issuer =
    attribute(certificate.issuer, "O") ?? attribute(certificate.issuer, "CN") ?? "an authority without a name";
  const by = certificate.issuer === certificate.subject ? "self-signed" : `by ${issuer}`;
  const until = dayOf(certificate.validTo);
  return `for ${names.slice(0, 4).join(", ") || "no name"}, ${by}, valid until ${until}, SHA-256 ${certificate.fingerprint256}`;
}

export interface Distrusted {
  /** As it was dialled. */
  host: string;
  certificate: X509Certificate | undefined;
  /** The authorities that were asked; those of the machine where absent. */
  caFile?: string;
}

export interface Distrust {
  says: string;
  /** What to do about it. */
  remedy: string;
  /** Another authority would make it good. */
  isUnknown: boolean;
}

/** What OpenSSL's or Node's code says against a certificate, and what to do. */
export function distrustInWords(code: string, { host, certificate, caFile }: Distrusted): Distrust {
  const compare = `if this is your coordinator (let its operator compare the fingerprint), give its authority, or the certificate itself, as a PEM file: --ca-file FILE`;
  switch (code) {
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "CERT_SIGNATURE_FAILURE":
      return caFile === undefined
        ? {
            says: "its certificate is not signed by an authority that this machine trusts",
            remedy: compare,
            isUnknown: true,
          }
        : {
            says: `its certificate is not signed by an authority in ${caFile}`,
            remedy: `${compare}; "--ca-file system" goes back to the authorities of this machine`,
            isUnknown: true,
          };
    case "CERT_HAS_EXPIRED":
      return {
        says: "its certificate has expired",
        remedy: `its operator has to renew it, unless this machine's clock is wrong (it says ${new Date().toISOString()})`,
        isUnknown: false,
      };
    case "CERT_NOT_YET_VALID":
      return {
        says: `its certificate is valid only from ${certificate === undefined ? "later on" : dayOf(certificate.validFrom)}`,
        remedy: `is this machine's clock right? It says ${new Date().toISOString()}; "timedatectl set-ntp true" sets it`,
        isUnknown: false,
      };
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return {
        says: `its certificate is not for ${host}`,
        remedy: "dial a name it is for, or let its operator add this one",
        isUnknown: false,
      };
    default:
      return {
        says: `its certificate is not trusted (${printable(code).slice(0, 100)})`,
        remedy: "its operator has to put that right",
        isUnknown: false,
      };
  }
}

/** The names of the extension that browsers go by, else the common name. */
function namesOf({ subjectAltName, subject }: X509Certificate): string[] {
  const names = (subjectAltName ?? "")
    .split(", ")
    .flatMap((entry) => /^(?:DNS|IP Address):"?([^"]+)"?$/.exec(entry)?.[1] ?? []);
  const shown = names.length > 0 ? names : [attribute(subject, "CN") ?? ""];
  return shown.map((name) => printable(name).slice(0, 100)).filter((name) => name !== "");
}

/** Of a distinguished name as Node writes it, one `KEY=value` a line. */
function attribute(name: string, key: string): string | undefined {
  const line = name.split("\n").find((each) => each.startsWith(`${key}=`));
  return line === undefined ? undefined : printable(line.slice(key.length + 1)).slice(0, 100);
}

function dayOf(date: string): string {
  const at = new Date(date);
  return Number.isNaN(at.getTime()) ? printable(date).slice(0, 40) : at.toISOString().slice(0, 10);
}
