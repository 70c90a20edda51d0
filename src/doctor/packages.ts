/** Readers of Debian's package files. Pure, over text. */

export interface InstalledPackage {
  name: string;
  /** `apt-mark hold`. */
  isHeld: boolean;
}

/** `/var/lib/dpkg/status`: stanzas with `Package:` and `Status: want flag state`. */
export function installedPackages(status: string): InstalledPackage[] {
  return status.split(/\n\n+/).flatMap((stanza) => {
    const name = /^Package: (\S+)$/m.exec(stanza)?.[1];
    const [, want, state] = /^Status: (\S+) \S+ (\S+)$/m.exec(stanza) ?? [];
    return name === undefined || state !== "installed" ? [] : [{ name, isHeld: want === "hold" }];
  });
}

export interface AptSettings {
  /** `APT::Periodic::Unattended-Upgrade`: days between two runs, 0 never. */
  period: number;
  /** `Unattended-Upgrade::Package-Blacklist`: patterns (Python's, matched from the beginning of a name). */
  blacklist: readonly string[];
}

/** What apt.conf(5) files, put one after the other, say of automatic upgrades. */
export function aptSettings(text: string): AptSettings {
  // A comment begins a line or follows a blank: "https://" is none.
  const plain = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)(?:\/\/|#(?!clear|include)).*$/gm, "$1");
  const periods = [
    ...plain.matchAll(/APT::Periodic::Unattended-Upgrade\s+"(\w+)"/g),
    ...[...plain.matchAll(/APT::Periodic\s*\{([^}]*)\}/g)].flatMap(([, body = ""]) => [
      ...body.matchAll(/Unattended-Upgrade\s+"(\w+)"/g),
    ]),
  ].map(([, value = ""]) => (value === "always" ? 1 : Number.parseInt(value, 10) || 0));
  const lists = [...plain.matchAll(/Unattended-Upgrade::Package-Blacklist\s*\{([^}]*)\}/g)];
  const blacklist = lists.flatMap(([, body = ""]) =>
    [...body.matchAll(/"([^"]*)"/g)].map(([, pattern = ""]) => pattern),
  );
  const single = [...plain.matchAll(/Unattended-Upgrade::Package-Blacklist::\s+"([^"]*)"/g)].map(([, one = ""]) => one);
  return { period: periods.at(-1) ?? 0, blacklist: [...blacklist, ...single] };
}

/** Whether a pattern of the blacklist holds a package. A pattern that is no regular expression of ours counts as its plain text. */
export function heldBack(name: string, blacklist: readonly string[]): boolean {
  return blacklist.some((pattern) => {
    if (pattern.length > 200) return false;
    try {
      return new RegExp(`^(?:${pattern})`).test(name);
    } catch {
      return name.startsWith(pattern);
    }
  });
}
