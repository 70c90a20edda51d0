/** Port on which a probe takes its orders, and which its neighbour tries to reach. */
export const PROBE_PORT = 7777;

/** Where to connect to, over TCP. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** How one attempt ended: `reached`, `silence` after the time given, or the system's word for the failure (`ECONNREFUSED`). */
export type Outcome = string;

/**
 * What runs inside a probe's container, as the text after `node -e`: it takes one line of JSON (`{ targets, timeoutMs }`) on
 * `PROBE_PORT`, tries all targets at once, answers with one outcome for each, and waits for the next.
 */
export const PROBE_PROGRAM = `
const net = require("node:net");
const attempt = ({ host, port }, timeoutMs) => new Promise((resolve) => {
  const socket = net.connect({ host, port });
  const end = (outcome) => { socket.destroy(); resolve(outcome); };
  socket.setTimeout(timeoutMs, () => end("silence"));
  socket.once("connect", () => end("reached"));
  socket.once("error", (error) => end(error.code ?? "error"));
});
const answer = async (socket, line) => {
  const { targets, timeoutMs } = JSON.parse(line);
  const outcomes = await Promise.all(targets.map((target) => attempt(target, timeoutMs)));
  socket.end(JSON.stringify(outcomes));
};
net.createServer((socket) => {
  let text = "";
  socket.setEncoding("utf8");
  socket.on("error", () => {});
  socket.on("data", (piece) => {
    text += piece;
    if (text.endsWith("\\n")) answer(socket, text).catch((error) => socket.destroy(error));
  });
}).listen(${PROBE_PORT});
process.on("SIGTERM", () => process.exit(0));
`;
