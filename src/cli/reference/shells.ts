/** What can be completed for, by the name of its program. */
export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** The hidden command by which a shell asks the daemon. */
export const WORDS_COMMAND = "__complete";
