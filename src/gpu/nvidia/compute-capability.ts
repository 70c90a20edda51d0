import type { Smi } from "./runner.ts";

/** uuid → compute capability as the driver tells it (510 and newer); empty where it does not. */
export async function computeCapabilities(smi: Smi, signal?: AbortSignal): Promise<Map<string, string>> {
  const result = await smi.run(["--query-gpu=uuid,compute_cap", "--format=csv,noheader"], {
    ...(signal && { signal }),
  });
  const found = new Map<string, string>();
  if (!result.ok) return found;
  for (const line of result.stdout.split("\n")) {
    const [, uuid, capability] = /^(GPU-[^,]+), (\d+\.\d+)\s*$/.exec(line) ?? [];
    if (uuid !== undefined && capability !== undefined) found.set(uuid, capability);
  }
  return found;
}

/**
 * Product name → compute capability, for drivers before 510 and for GPUs that no longer answer. The first row that fits counts,
 * so the more special name stands first. Source: NVIDIA's list of CUDA GPUs (developer.nvidia.com/cuda-gpus, and the legacy list).
 */
const BY_NAME: readonly (readonly [RegExp, string])[] = [
  [/\bGB10\b/, "12.1"],
  [/\bRTX PRO\b.*\bBlackwell\b|\bRTX 50[5-9]0\b/, "12.0"],
  [/\bThor\b|\bT[45]000 Jetson\b/, "11.0"],
  [/\bG?B300\b/, "10.3"],
  [/\bG?B200\b/, "10.0"],
  [/\bGH200\b|\bH[128]00\b|\bH20\b/, "9.0"],
  [/\bAda\b|\bL40S\b|\bL40\b|\bL20\b|\bL4\b|\bL2\b|\bRTX 40[5-9]0\b/, "8.9"],
  [/\bOrin\b/, "8.7"],
  [/\bA10G\b|\bA10M?\b|\bA16\b|\bA40\b|\bA2\b|\bRTX A\d{3,4}\b|\bRTX 30[5-9]0\b|\bRTX 2050\b/, "8.6"],
  [/\bA100X?\b|\bA800\b|\bA30X?\b|\bDRIVE-PG199\b/, "8.0"],
  [
    /\bT4G?\b|\bRTX 20[6-8]0\b|\bTITAN RTX\b|\bQuadro RTX\b|\bRTX [3-8]000\b|\bGTX 16[5-6]0\b|\bMX450\b|\bMX550\b|\bT(400|500|550|600|1000|1200)\b/,
    "7.5",
  ],
  [/\bXavier\b/, "7.2"],
  [/\bV100S?\b|\bTITAN V\b|\bGV100\b/, "7.0"],
  [/\bTX2\b/, "6.2"],
  [/\bP100\b|\bGP100\b/, "6.0"],
  [
    /\bP4\b|\bP40\b|\bP6\b|\bGTX 10[1-8]0\b|\bGT 1030\b|(?<!\bGTX )\bTITAN Xp?\b|\bQuadro P\d{3,4}\b|\bMX1[135]0\b|\bMX[23][1-5]0\b/,
    "6.1",
  ],
  [/\bTX1\b|\bNano\b/, "5.3"],
  [/\bM40\b|\bM60\b|\bM6\b|\bM4\b|\bGTX 9[5-8]0\b|\bGTX TITAN X\b|\bQuadro M\d{4}\b/, "5.2"],
  [/\bM10\b|\bGTX 7[45]0\b/, "5.0"],
  [/\bK80\b/, "3.7"],
  [/\bK40\w?\b|\bK20\w*\b|\bGT 730\b|\bGTX 780\b|\bGTX TITAN\b/, "3.5"],
  [/\bK520\b|\bGRID K[12]\b/, "3.0"],
];

/** The compute capability of a product by its name; undefined where the name does not tell. */
export function capabilityOfName(name: string): string | undefined {
  // Virtual GPUs carry their profile behind the board's name: "NVIDIA L40S-2Q", "NVIDIA H100L-2-24C".
  const board = name.replace(/-\d+(-\d+)?[A-Z]$/, "").replace(/\b(H100|A100)L\b/, "$1");
  return BY_NAME.find(([pattern]) => pattern.test(board))?.[1];
}
