/** 32 bits that depend on every character of `text` (FNV-1a with a final avalanche): enough to tell things apart. */
export function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Between 0 and 1, the same for the same text. */
export function fraction(text: string): number {
  return hash(text) / 0x1_0000_0000;
}

/** A UUID in NVIDIA's form, the same for the same text and distinct for distinct ones. */
export function uuid(prefix: "GPU" | "MIG", text: string): string {
  const hex = [0, 1, 2, 3].map((part) => hash(`${part}/${prefix}/${text}`).toString(16).padStart(8, "0")).join("");
  return `${prefix}-${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** `length` decimal digits, the same for the same text. */
export function digits(text: string, length: number): string {
  return Array.from({ length }, (_, at) => hash(`${at}#${text}`) % 10).join("");
}
