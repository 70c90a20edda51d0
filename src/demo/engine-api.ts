import { request } from "node:http";

/** Status and body of one call to a Docker engine's API over its unix socket. */
export interface EngineAnswer {
  readonly status: number;
  readonly body: string;
}

/**
 * One call to an engine's API. Setting up and tearing down an engine needs four plain requests, so this room does
 * without a Docker client.
 *
 * @throws where the socket is not there, does not answer in `timeoutMs`, or breaks off.
 */
export function callEngine(
  socket: string,
  call: { method?: "GET" | "POST" | "DELETE"; path: string; timeoutMs: number },
): Promise<EngineAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      // No connection is kept: a pooled one would outlive the engine it belongs to.
      { socketPath: socket, method: call.method ?? "GET", path: call.path, agent: false },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          body += text;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
        response.on("error", reject);
      },
    );
    outgoing.setTimeout(call.timeoutMs, () => {
      outgoing.destroy(new Error(`The Docker engine at ${socket} did not answer within ${call.timeoutMs} ms.`));
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

/** True where an engine behind this socket answers. */
export async function engineAnswers(socket: string, timeoutMs: number): Promise<boolean> {
  return callEngine(socket, { path: "/_ping", timeoutMs }).then(
    ({ status }) => status === 200,
    () => false,
  );
}

/**
 * The Docker engine this user already has: the one `DOCKER_HOST` names where it is a unix socket, else the one at
 * `/var/run/docker.sock`. Undefined where none answers.
 */
export async function findEngine(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<{ socket: string } | undefined> {
  const host = environment.DOCKER_HOST;
  // A remote engine runs on another machine's GPUs: it can never be this machine's engine.
  if (host !== undefined && host !== "" && !host.startsWith("unix://")) return undefined;
  const socket = host ? host.slice("unix://".length) : "/var/run/docker.sock";
  return (await engineAnswers(socket, 3_000)) ? { socket } : undefined;
}
