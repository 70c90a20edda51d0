/**
 * Why a text is no JSON, from what `JSON.parse` threw, without the piece of the text that V8 quotes: frames and files that are read
 * this way carry secrets.
 */
export function whyNotJson(error: unknown): string {
  if (!(error instanceof SyntaxError)) return "unreadable";
  return error.message.replace(/, (?:\.\.\.)?".*is not valid JSON$/s, "");
}
