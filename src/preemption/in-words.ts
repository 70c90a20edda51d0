/** What somebody else has named may hold anything: without control characters and line ends, and cut, it may stand in a sentence. */
export function shown(name: string, longest = 64): string {
  const plain = name
    .replaceAll(/\p{C}|\p{Zl}|\p{Zp}/gu, "")
    .replaceAll(/\s+/g, " ")
    .trim();
  const letters = [...plain];
  return letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : plain;
}
