import { readFileSync } from "node:fs";
import { join } from "node:path";

export type Cloud = "aws" | "gcp" | "azure";

/**
 * What the firmware of a cloud's machines says of itself: EC2 on Nitro and bare metal names its vendor, on Xen (older GPU instances) its BIOS
 * version ends in "amazon"; Google's product name is not that of its laptops; Azure has one asset tag for all machines (systemd,
 * cloud-init and Microsoft's own guest agent go by the same). Other clouds' machines say "Microsoft Corporation" too.
 */
const SIGNS: readonly { cloud: Cloud; file: string; says: RegExp }[] = [
  { cloud: "aws", file: "sys_vendor", says: /^Amazon EC2$/ },
  { cloud: "aws", file: "bios_version", says: /\.amazon$/ },
  { cloud: "gcp", file: "product_name", says: /^Google Compute Engine$/ },
  { cloud: "azure", file: "chassis_asset_tag", says: /^7783-7084-3265-9085-8269-3286-77$/ },
];

/** The cloud this machine belongs to, by its firmware; undefined where it is nobody's. The network is never asked. */
export function detectCloud(dmiDir = "/sys/class/dmi/id"): Cloud | undefined {
  return SIGNS.find(({ file, says }) => says.test(read(join(dmiDir, file))))?.cloud;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
