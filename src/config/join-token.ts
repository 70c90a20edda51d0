import { readFileSync, statSync } from "node:fs";
import { Secret } from "../protocol/secret.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./problem.ts";

/**
 * The configuration with the join token read from its file, where one is named. Only the daemon needs this: who asks it
 * for its status may well not be allowed to read that file.
 *
 * Throws `ConfigError` where the file is missing, empty, or readable by everybody.
 */
export function withJoinToken(config: Config): Config {
  const file = config.coordinator.joinTokenFile;
  if (file === undefined) return config;
  const about = (problem: string, cause?: unknown) =>
    new ConfigError([`coordinator.join_token_file ${file}: ${problem}`], { cause });
  let text: string;
  try {
    const { mode } = statSync(file);
    if ((mode & 0o004) !== 0) {
      throw about(
        `everybody on this machine can read it (mode 0${(mode & 0o777).toString(8)}); run chmod o-rwx ${file}`,
      );
    }
    text = readFileSync(file, "utf8").trim();
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") {
      throw about(
        "there is no such file; if this node has joined already, take the key out of the configuration",
        error,
      );
    }
    throw about(code === "EACCES" ? "the daemon's user may not read it" : message, error);
  }
  if (text === "" || /\s/.test(text))
    throw about(text === "" ? "it is empty" : "it must hold one token and nothing else");
  return { ...config, coordinator: { ...config.coordinator, joinToken: new Secret(text) } };
}
