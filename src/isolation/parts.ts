// What the agent takes of this room, loaded together.
export { startIsolation } from "./isolation.ts";
export { nftFirewall } from "./nft.ts";
export { exceptionsOf } from "./rules.ts";
