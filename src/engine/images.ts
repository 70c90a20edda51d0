import type { LABEL_PROBE as LabelProbe } from "../isolation/probe-image.ts";
import type { ImageInfo } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { LocalImage } from "../workload/needs.ts";
import { ImageAnswer, ImageListAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer } from "./client.ts";
import { statusOf } from "./errors.ts";

/** An image's name taken apart: `host/path`, and a tag or a digest. */
export interface ImageReference {
  /** Host and path as written, without tag and digest. */
  repository: string;
  /** `sha256:…`; it says exactly which image, so a tag beside it is left out. */
  digest?: string;
  /** `latest` where the reference has neither: the engine would otherwise pull every tag there is. */
  tag?: string;
}

/** What image names and ids are made of; nothing that means something in the path of a request. */
const NAME = /^[a-z0-9](?:[a-z0-9._:-]|\/(?=[a-z0-9]))*(?:@sha256:[0-9a-f]{64})?$/i;

function requireName(reference: string): string {
  if (NAME.test(reference)) return reference;
  throw new GpunodeError(
    "invalid_spec",
    `"${reference}" is no image name: expected host/path:tag or host/path@sha256:…`,
    { details: { reason: "bad_image_name" } },
  );
}

/** Takes `host:5000/path:tag@sha256:…` apart. Throws `invalid_spec` where there is no name in it. */
export function parseReference(reference: string): ImageReference {
  const [name = "", digest] = requireName(reference).split("@");
  const colon = name.lastIndexOf(":");
  // A colon before a slash belongs to the registry's port.
  const hasTag = colon > name.lastIndexOf("/");
  const repository = hasTag ? name.slice(0, colon) : name;
  if (digest !== undefined) return { repository, digest };
  return { repository, tag: hasTag ? name.slice(colon + 1) : "latest" };
}

/** undefined where the engine does not have it. */
export async function inspectImage(
  client: EngineClient,
  reference: string,
  signal?: AbortSignal,
): Promise<LocalImage | undefined> {
  let answer: unknown;
  try {
    const doing = `look up the image ${reference}`;
    const path = `/images/${requireName(reference)}/json`;
    answer = await client.ask((abortSignal) => client.get(path, { abortSignal }), { doing, signal });
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
  return localImage(parseAnswer(ImageAnswer, answer, `the image ${reference}`), reference);
}

function localImage(image: ImageAnswer, reference: string): LocalImage {
  return {
    id: image.Id,
    digest: digestOf(image, reference),
    sizeBytes: image.Size,
    architecture: image.Architecture,
    os: image.Os,
    env: image.Config.Env,
    user: image.Config.User,
  };
}

/** The registry's digest for this name: an image pulled under several names or indexes has several. */
function digestOf({ Id, RepoDigests }: ImageAnswer, reference: string): string {
  const [name = "", digest] = reference.split("@");
  if (digest !== undefined) return digest;
  const repository = familiar(name === Id ? "" : parseReference(name).repository);
  const known = RepoDigests.map((entry) => entry.split("@"));
  const own = known.find(([other = ""]) => familiar(other) === repository);
  return (own ?? known[0])?.[1] ?? Id;
}

/** Docker Hub's names have a long and a short form. */
function familiar(repository: string): string {
  return repository.replace(/^(?:index\.)?docker\.io\//, "").replace(/^library\//, "");
}

/** On the image of our own probe, which is nobody's to start; the type holds it to the name the isolation room uses. */
export const LABEL_PROBE: typeof LabelProbe = "org.gpunode.probe";

/** What this node could start without a pull. */
export async function listImages(client: EngineClient): Promise<ImageInfo[]> {
  const answer = await client.ask((abortSignal) => client.docker.listImages({ abortSignal } as object), {
    doing: "list the images",
  });
  const images = parseAnswer(ImageListAnswer, answer, "images").filter(({ Labels }) => !(LABEL_PROBE in Labels));
  return images.map(({ Id, RepoDigests, RepoTags, Size }) => ({
    digest: RepoDigests.map((entry) => entry.split("@")[1]).find((digest) => digest !== undefined) ?? Id,
    tags: RepoTags.filter((tag) => tag !== "<none>:<none>"),
    sizeMiB: Math.round((Size / 1024 / 1024) * 10) / 10,
  }));
}
