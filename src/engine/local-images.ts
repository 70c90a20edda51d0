import { GpunodeError } from "../protocol/errors.ts";
import { ImageListAnswer, PullLine } from "./answers.ts";
import { type EngineClient, jsonLines, parseAnswer, piecesOf } from "./client.ts";
import { explain } from "./errors.ts";

/** A hundred megabytes onto a slow disk. */
const IMPORT_MS = 5 * 60_000;

/** Images that are made here, and never pulled: found by a label, which only the engine's owner can give. */
export function localImages(client: EngineClient) {
  /** Id of the image with this label (`name=value`); undefined where there is none. */
  async function find(label: string): Promise<string | undefined> {
    const query = { filters: JSON.stringify({ label: [label] }) };
    const answer = await client.ask((abortSignal) => client.get("/images/json", { query, abortSignal }), {
      doing: "look for an image of ours",
    });
    return parseAnswer(ImageListAnswer, answer, "images")[0]?.Id;
  }

  /** Makes an image of a root file system. Returns its id. Throws `insufficient_disk`, `engine_unavailable` or `internal`. */
  async function importTar(
    tar: NodeJS.ReadableStream,
    { name, label, signal }: { name: string; label: string; signal: AbortSignal },
  ): Promise<string> {
    const doing = `make the image ${name}`;
    const colon = name.lastIndexOf(":");
    const options = { repo: name.slice(0, colon), tag: name.slice(colon + 1), changes: `LABEL ${label}` };
    const stream = await client.open(
      (abortSignal) => client.docker.importImage(tar, { ...options, abortSignal } as object),
      { doing, timeoutMs: IMPORT_MS, signal },
    );
    let id: string | undefined;
    for await (const line of jsonLines(piecesOf(stream, signal))) {
      const { status, error } = parseAnswer(PullLine, line, "an import");
      if (error !== undefined) throw explain(error, doing);
      if (/^sha256:[0-9a-f]{64}$/.test(status ?? "")) id = status;
    }
    if (id === undefined) throw new GpunodeError("internal", `could not ${doing}: the engine names no image`);
    return id;
  }

  return { find, importTar };
}
