import { compareVersions } from "../placement/unit.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { LocalImage } from "./needs.ts";

/**
 * What an image itself asks of the machine, compared before anything starts: its architecture, and the
 * `NVIDIA_REQUIRE_*` variables CUDA images carry.
 *
 * Format (NVIDIA container toolkit, "Constraints"): alternatives are separated by spaces, the conditions of one
 * alternative by commas; a condition is `name<op>value` with names `cuda`, `driver`, `arch`, `brand`. Every
 * `NVIDIA_REQUIRE_*` variable has to hold; `NVIDIA_DISABLE_REQUIRE` switches them all off.
 */

interface Condition {
  name: string;
  operator: ">=" | "<=" | "!=" | "=" | ">" | "<";
  value: string;
}

const VERSION = /^\d{1,9}(\.\d{1,9})*$/;
const CONDITION = /^(\w+)(>=|<=|!=|=|>|<)(.+)$/;

/** What the machine offers to hold the demands against; absent is unknown. */
export interface DriverFacts {
  driverVersion?: string;
  cudaVersion?: string;
}

/**
 * Throws `invalid_spec` where the image is for another architecture, `driver_too_old` where the driver does not meet the
 * image's own demands, both with the two values compared.
 */
export function checkImageDemands(
  image: LocalImage,
  host: { architecture: string },
  driver: DriverFacts,
  gpus: readonly Gpu[],
): void {
  if (image.architecture !== "" && image.architecture !== host.architecture) {
    throw new GpunodeError(
      "invalid_spec",
      `the image is built for ${image.os}/${image.architecture}, this node is ${host.architecture}: push a ${host.architecture} variant`,
      { details: { reason: "wrong_architecture", image: image.architecture, node: host.architecture } },
    );
  }
  if (gpus.length === 0) return;
  const env = new Map(image.env.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  if (/^(1|true|yes|on)$/i.test(env.get("NVIDIA_DISABLE_REQUIRE") ?? "")) return;
  for (const [name, text] of env) {
    if (!name.startsWith("NVIDIA_REQUIRE_") || text.trim() === "") continue;
    for (const gpu of gpus) requireAll(name, text, driver, gpu);
  }
}

function requireAll(variable: string, text: string, driver: DriverFacts, gpu: Gpu): void {
  const alternatives = text
    .trim()
    .split(/\s+/)
    .map((alternative) => alternative.split(","));
  if (alternatives.some((conditions) => conditions.every((condition) => holds(condition, driver, gpu)))) return;
  throw new GpunodeError(
    "driver_too_old",
    `the image demands ${variable}=${shorten(text)}; the driver here is ${driver.driverVersion ?? "unknown"} and offers CUDA ${driver.cudaVersion ?? "of an unknown version"}: use an image built for it, or upgrade the driver`,
    {
      details: {
        required: text.slice(0, 500),
        driverVersion: driver.driverVersion ?? "unknown",
        cudaVersion: driver.cudaVersion ?? "unknown",
      },
    },
  );
}

function holds(text: string, driver: DriverFacts, gpu: Gpu): boolean {
  const condition = parseCondition(text);
  // A condition we cannot read must not keep an image from running that the toolkit itself would admit.
  if (condition === undefined) return true;
  if (condition.name === "brand") return compareEqual(condition, brandOf(gpu.name));
  const actual = actualOf(condition.name, driver, gpu);
  if (actual === undefined || !VERSION.test(actual) || !VERSION.test(condition.value)) return true;
  const order = compareVersions(actual, condition.value);
  switch (condition.operator) {
    case ">=":
      return order >= 0;
    case "<=":
      return order <= 0;
    case ">":
      return order > 0;
    case "<":
      return order < 0;
    case "=":
      return order === 0;
    case "!=":
      return order !== 0;
  }
}

function actualOf(name: string, driver: DriverFacts, gpu: Gpu): string | undefined {
  switch (name) {
    case "cuda":
      return driver.cudaVersion;
    case "driver":
      return driver.driverVersion;
    case "arch":
      return gpu.computeCapability;
    default:
      return undefined;
  }
}

function parseCondition(text: string): Condition | undefined {
  const match = CONDITION.exec(text.trim());
  if (match === null) return undefined;
  const [, name, operator, value] = match;
  return { name: (name ?? "").toLowerCase(), operator: operator as Condition["operator"], value: value ?? "" };
}

function compareEqual(condition: Condition, actual: string): boolean {
  const same = condition.value.toLowerCase() === actual;
  return condition.operator === "!=" ? !same : same;
}

/** Product brand as libnvidia-container names it, told from the product name (nvmlDeviceGetBrand's families). */
function brandOf(name: string): string {
  const lower = name.toLowerCase();
  if (lower.includes("geforce")) return "geforce";
  if (lower.includes("titan")) return "titan";
  if (lower.includes("quadro rtx")) return "quadrortx";
  if (lower.includes("quadro")) return "quadro";
  if (/\brtx\b/.test(lower)) return "nvidiartx";
  return "tesla";
}

function shorten(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 120)}…`;
}
