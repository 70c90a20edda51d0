/** A scenario that cannot be simulated; the message names the value, what is allowed and where it stands. */
export class ScenarioError extends Error {
  override readonly name = "ScenarioError";
}
