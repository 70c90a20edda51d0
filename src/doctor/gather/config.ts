import type { Config } from "../../config/config.ts";
import { withJoinToken } from "../../config/join-token.ts";
import { defaultConfig, resolveConfig } from "../../config/load.ts";
import { ConfigError } from "../../config/problem.ts";
import type { ConfigFacts } from "../facts.ts";
import { lookAt } from "../machine.ts";
import type { Reader } from "./reader.ts";

export const config: Reader<"config"> = {
  limitMs: 2_000,
  async read({ env, configFile }): Promise<ConfigFacts> {
    const options = { env, ...(configFile !== undefined && { file: configFile }) };
    try {
      const { config: found, file, warnings } = await resolveConfig(options);
      const files = filesOf(found, file);
      return {
        config: found,
        problems: joinTokenProblems(found),
        warnings,
        isClosed: false,
        files,
        ...(file !== undefined && { file }),
      };
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      const isClosed = ["EACCES", "EPERM"].includes((error.cause as NodeJS.ErrnoException | undefined)?.code ?? "");
      return { config: defaultConfig(env), problems: error.problems, warnings: [], isClosed, files: [] };
    }
  },
};

/** A file that only the daemon's user may read says nothing to others. */
function joinTokenProblems(found: Config): readonly string[] {
  try {
    withJoinToken(found);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return (error.cause as NodeJS.ErrnoException | undefined)?.code === "EACCES" ? [] : error.problems;
  }
}

/** Where this process finds them, as the rooms do that read them. */
function filesOf({ coordinator, policy }: Config, file: string | undefined): ConfigFacts["files"] {
  const named = [
    { key: "the configuration", path: file },
    { key: "coordinator.join_token_file", path: coordinator.joinTokenFile },
    { key: "coordinator.ca_file", path: coordinator.caFile },
    { key: "coordinator.cert_file", path: coordinator.certFile },
    { key: "coordinator.key_file", path: coordinator.keyFile },
    ...policy.cosignKeys.map((path) => ({ key: "policy.cosign_keys", path })),
  ];
  return named.flatMap(({ key, path }) => {
    if (path === undefined) return [];
    const look = lookAt(path);
    return [{ key, path, ...(look !== undefined && { look }) }];
  });
}
