import { hiding, type Secret } from "../protocol/secret.ts";
import type { RegistryAuth } from "../protocol/workload.ts";

/** Field names of the engine's `X-Registry-Auth` (`AuthConfig`); undefined without a login. */
export function loginFor(
  repository: string,
  login: Secret<RegistryAuth> | undefined,
): Record<string, string> | undefined {
  if (login === undefined) return undefined;
  const auth = login.reveal();
  const host = repository.split("/")[0] ?? "";
  // A first part without dot, colon or "localhost" is a folder of Docker Hub, as in every Docker tool.
  const serveraddress =
    /[.:]|^localhost$/.test(host) && repository.includes("/") ? host : "https://index.docker.io/v1/";
  if ("identityToken" in auth) return { identitytoken: auth.identityToken, serveraddress };
  return { username: auth.username, password: auth.password, serveraddress };
}

/** Takes what must not be told of a login out of words that came from elsewhere. The user's name stays. */
export function hidingLogin(login: Secret<RegistryAuth> | undefined): (words: string) => string {
  if (login === undefined) return (words) => words;
  const auth = login.reveal();
  return hiding(["identityToken" in auth ? auth.identityToken : auth.password]);
}
