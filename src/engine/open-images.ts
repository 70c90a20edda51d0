/** Remembers over restarts; see `OpenImages`. */
export interface OpenImagesMemory {
  get(): string | undefined;
  set(text: string): void;
}

/**
 * Images that everybody may have: this node got them from their registry without a login. What is not among them is asked for again
 * at the registry, so forgetting one costs a manifest and lets nobody in.
 */
export interface OpenImages {
  has(repository: string, digest: string): boolean;
  add(repository: string, digest: string): void;
}

/** The oldest go first: far more than fit on most disks. */
const MOST = 500;

export function openImages(memory: OpenImagesMemory): OpenImages {
  const known = new Set(readNames(memory.get()));
  const nameOf = (repository: string, digest: string) => `${repository}@${digest}`;
  return {
    has: (repository, digest) => known.has(nameOf(repository, digest)),
    add(repository, digest) {
      const name = nameOf(repository, digest);
      if (known.has(name)) return;
      known.add(name);
      for (const oldest of known) {
        if (known.size <= MOST) break;
        known.delete(oldest);
      }
      memory.set([...known].join("\n"));
    },
  };
}

function readNames(text: string | undefined): string[] {
  return text === undefined ? [] : text.split("\n").filter((line) => line !== "");
}
