import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { type Changes, EditRefused, editConfig } from "../../config/edit.ts";
import { resolveConfig } from "../../config/load.ts";
import { ConfigError } from "../../config/problem.ts";
import { draftOf } from "../../config/replace-file.ts";
import type { Answers } from "./answers.ts";
import { ownersOf, type Place } from "./place.ts";

/** What enrolling would write, nothing of it written yet. */
export interface Writing {
  /** One sentence for each file, without secrets. */
  says: string[];
  /** Writes both files, or neither. Throws where the disk refuses, or the configuration would be wrong. */
  write(): Promise<void>;
}

/** The configuration with the answers in it, every other key and comment as it was. Throws with what to write by hand where that cannot be done. */
export async function writingOf(place: Place, answers: Answers): Promise<Writing> {
  const { configFile, tokenFile } = place;
  const { token } = answers;
  const before = existsSync(configFile) ? readFileSync(configFile, "utf8") : "";
  const changes = changesOf(place, answers);
  let after: string;
  try {
    after = await editConfig(before, changes);
  } catch (error) {
    throw error instanceof EditRefused ? new Error(`${configFile}: ${error.message}`, { cause: error }) : error;
  }
  const isOther = after !== before;
  const owners = ownersOf(place);
  const keys = Object.entries(changes).map(([key, value]) =>
    value === undefined ? `without ${key}` : `${key} = ${JSON.stringify(value)}`,
  );
  return {
    says: [
      ...(token === undefined ? [] : [`write the join token to ${tokenFile}`]),
      ...(isOther ? [`write ${configFile}: ${keys.join(", ")}`] : []),
      ...(owners.isClosed ? [`let the service read ${configFile}`] : []),
    ],
    async write() {
      mkdirSync(dirname(configFile), { recursive: true, mode: place.isService ? 0o755 : 0o700 });
      using config = draftOf(configFile, after, owners.config);
      // As the daemon will read it.
      await resolveConfig({ file: config.path, env: {} }).catch((error: unknown) => {
        if (!(error instanceof ConfigError)) throw error;
        throw new ConfigError(error.problems.map((problem) => problem.replaceAll(config.path, configFile)));
      });
      using secret = token === undefined ? undefined : draftOf(tokenFile, `${token.reveal()}\n`, owners.token);
      // In one turn, so that no signal comes in between; and the token first, which the configuration names.
      secret?.putInPlace();
      if (isOther || owners.isClosed) config.putInPlace();
    },
  };
}

/** The keys that are to be others than they are. */
function changesOf({ tokenFile, current: { config } }: Place, answers: Answers): Changes {
  const { coordinator } = config;
  const changes: Changes = {};
  if (answers.name !== undefined && answers.name !== config.name) changes.name = answers.name;
  const isOther = answers.url !== coordinator.url;
  if (isOther) changes["coordinator.url"] = answers.url;
  if (answers.token !== undefined) {
    if (coordinator.joinTokenFile !== tokenFile) changes["coordinator.join_token_file"] = tokenFile;
    if (coordinator.joinToken !== undefined) changes["coordinator.join_token"] = undefined;
  } else if (isOther) {
    // The token of one coordinator is nothing to show to another.
    if (coordinator.joinTokenFile !== undefined) changes["coordinator.join_token_file"] = undefined;
    if (coordinator.joinToken !== undefined) changes["coordinator.join_token"] = undefined;
  }
  if (answers.caFile !== coordinator.caFile) changes["coordinator.ca_file"] = answers.caFile;
  if (answers.proxy !== undefined && answers.proxy !== coordinator.proxy?.reveal()) {
    changes["coordinator.proxy"] = answers.proxy;
  }
  if (answers.insecure && !coordinator.insecure) changes["coordinator.insecure"] = true;
  return changes;
}
