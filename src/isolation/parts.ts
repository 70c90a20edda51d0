// What the agent takes of this room, loaded together.
export { parseCidr } from "./addresses.ts";
export { startIsolation } from "./isolation.ts";
export { nftFirewall } from "./nft.ts";
