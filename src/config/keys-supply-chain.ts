import { defaulted } from "./key.ts";
import * as kinds from "./kinds.ts";

/** Keys of what an image must have to show for itself. */
export const SUPPLY_CHAIN_KEYS = {
  "policy.cosign_keys": defaulted<readonly string[]>([], {
    kind: kinds.pathList(),
    description:
      "Public keys of cosign: an image runs only if `cosign verify` finds a signature by one of them. Needs cosign on this machine. Empty: signatures are not looked at.",
  }),
};
