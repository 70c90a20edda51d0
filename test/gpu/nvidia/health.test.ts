import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { healthPage } from "../../../src/gpu/health-page.ts";
import { healthOf } from "../../../src/gpu/nvidia/health.ts";
import { readSmiXml } from "../../../src/gpu/nvidia/xml.ts";
import { fixture, fixtureFiles, haveFixtures } from "../../support/fixtures.ts";

const healthWith = (values: Record<string, string>) => {
  const { status, reasons } = healthOf({ values: new Map(Object.entries(values)) });
  return [status, ...reasons.map(({ code }) => code)].join(" ");
};

describe("what a GPU says of its own health", () => {
  it.each<[Record<string, string>, string]>([
    [{}, "healthy"],
    [{ uuid: "GPU is lost" }, "failed gpu_lost"],
    [{ "utilization/gpu_util": "[GPU requires reset]" }, "failed reset_required"],
    [{ "remapped_rows/remapped_row_failure": "Yes" }, "failed row_remap_failure"],
    [{ "ecc_errors/unrepairable_memory": "Yes" }, "failed unrepairable_memory"],
    [{ "ecc_errors/aggregate/sram_threshold_exceeded": "Yes" }, "degraded sram_threshold_exceeded"],
    [{ "ecc_errors/channel_repair_pending": "Yes" }, "degraded repair_pending"],
    [{ "ecc_errors/tpc_repair_pending": "Yes" }, "degraded repair_pending"],
    [{ "remapped_rows/remapped_row_pending": "Yes" }, "degraded row_remap_pending"],
    [{ "retired_pages/pending_retirement": "Yes" }, "degraded page_retirement_pending"],
    [{ "retired_pages/pending_blacklist": "Yes" }, "degraded page_retirement_pending"],
    [
      {
        "retired_pages/double_bit_retirement/retired_count": "20",
        "retired_pages/multiple_single_bit_retirement/retired_count": "40",
      },
      "degraded many_retired_pages",
    ],
    [{ "retired_pages/double_bit_retirement/retired_count": "59" }, "healthy"],
    [{ "ecc_errors/volatile/dram_uncorrectable": "2" }, "degraded ecc_uncorrected"],
    [{ "ecc_errors/volatile/sram_uncorrectable_parity": "1" }, "degraded ecc_uncorrected"],
    [{ "ecc_errors/volatile/double_bit/total": "3" }, "degraded ecc_uncorrected"],
    [{ "ecc_errors/aggregate/dram_uncorrectable": "9", "ecc_errors/volatile/dram_uncorrectable": "0" }, "healthy"],
    [{ "ecc_errors/volatile/dram_correctable": "9" }, "healthy"],
    [{ gpu_recovery_action: "None" }, "healthy"],
    [{ gpu_recovery_action: "N/A" }, "healthy"],
    [{ gpu_recovery_action: "GPU Reset" }, "failed recovery_reset"],
    [{ gpu_recovery_action: "Node Reboot" }, "failed recovery_reboot"],
    [{ gpu_recovery_action: "Drain and Reset" }, "degraded recovery_drain"],
    [{ "fabric/state": "Completed", "fabric/status": "Success" }, "healthy"],
    [{ "fabric/state": "N/A", "fabric/status": "N/A" }, "healthy"],
    [{ "fabric/state": "In Progress", "fabric/status": "N/A" }, "degraded fabric_not_ready"],
    [{ "fabric/state": "Completed", "fabric/status": "Initialization Error" }, "degraded fabric_not_ready"],
    [{ "fabric/health/bandwidth": "Degraded" }, "degraded fabric_unhealthy"],
    [{ "fabric/health/route_unhealthy": "True" }, "degraded fabric_unhealthy"],
    [{ "fabric/health/incorrect_configuration": "None" }, "healthy"],
    [{ "inforom_version/img_version": "ERR!" }, "degraded inforom_corrupted"],
    [{ "inforom_version/pwr_object": "N/A" }, "healthy"],
    [
      { "remapped_rows/remapped_row_pending": "Yes", "remapped_rows/remapped_row_failure": "Yes" },
      "failed row_remap_failure row_remap_pending",
    ],
  ])("%j is %s", (values, expected) => {
    expect(healthWith(values)).toBe(expected);
  });
});

it("docs/health.md has the tables of the code", () => {
  const page = readFileSync(resolve(import.meta.dirname, "../../../docs/health.md"), "utf8");
  expect(page).toContain("| `gpu_lost` | failed | yes | no |");
  expect(page).toBe(healthPage(page));
});

describe.runIf(haveFixtures)("recorded GPUs", () => {
  it("are healthy where no plain look at the text finds a fault", () => {
    const files = [...fixtureFiles("xml", ".xml"), ...fixtureFiles("xml-mock", ".xml")];
    expect(files.length).toBeGreaterThan(20);
    for (const file of files) {
      const text = readFileSync(file, "utf8");
      const { gpus } = readSmiXml(text);
      const parts = text.split(/<gpu id=/).slice(1);
      expect(gpus.length, file).toBeLessThanOrEqual(parts.length);
      gpus.forEach((gpu, index) => {
        const part = parts[index] ?? "";
        const volatileEcc = /<volatile>[\s\S]*?<\/volatile>/.exec(part)?.[0] ?? "";
        const isFaulty =
          />GPU is lost</.test(part) ||
          /<remapped_row_(pending|failure)>Yes/.test(part) ||
          /<pending_(retirement|blacklist)>Yes/.test(part) ||
          /uncorrectable\w*>[1-9]/.test(volatileEcc) ||
          /<bandwidth>Degraded|<(route_unhealthy|access_timeout_recovery)>True/.test(part) ||
          /<double_bit>[\s\S]*?<total>[1-9]/.test(volatileEcc);
        expect(healthOf(gpu).status !== "healthy", `${file} GPU ${index}`).toBe(isFaulty);
      });
    }
  });

  it("one with injected errors and a failed remap is failed, its neighbour is not", () => {
    const { gpus } = readSmiXml(fixture("xml-mock/gb200-ecc-injected-580.65.06-nvmlmock.xml"));
    const [first, second] = gpus.map((gpu) => healthOf(gpu));
    expect(first?.status).toBe("failed");
    expect(first?.reasons.map(({ code }) => code)).toEqual(
      expect.arrayContaining(["row_remap_failure", "ecc_uncorrected"]),
    );
    expect(second).toEqual({ status: "healthy", reasons: [] });
  });
});
