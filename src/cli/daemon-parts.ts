// What a daemon is made of, loaded together and only by the one command that is one.
import "./lean.ts";

export { runAgent } from "../agent.ts";
export { withJoinToken } from "../config/join-token.ts";
export { runDaemon } from "./daemon.ts";
export { askHostDetails } from "./host-details.ts";
export { createLog } from "./log.ts";
export { keepTidy } from "./tidy.ts";
