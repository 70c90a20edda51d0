/**
 * The number a text of nvidia-smi begins with, as it is: "81559 MiB" → 81559, "16x" → 16, "4.5 W" → 4.5. undefined where it begins
 * with none, and where it is longer than anything that is measured (15 digits, which a double holds exactly).
 */
export function leadingFigure(text: string | undefined): number | undefined {
  const [, figure] = /^\s*(\d{1,15}(?:\.\d{1,15})?)(?![\d.])/.exec(text ?? "") ?? [];
  return figure === undefined ? undefined : Number(figure);
}

/** The same to the nearest whole number: what counts something, or is told in whole units. */
export function leadingCount(text: string | undefined): number | undefined {
  const figure = leadingFigure(text);
  return figure === undefined ? undefined : Math.round(figure);
}
