import { describe, expect, it } from "vitest";
import { inventoryOf } from "../../../src/gpu/nvidia/inventory.ts";
import { readSmiXml } from "../../../src/gpu/nvidia/xml.ts";
import { Gpu } from "../../../src/protocol/gpu.ts";
import { fixture, haveFixtures } from "../../support/fixtures.ts";
import { documents, first, gpuTexts, numberOf, within } from "./documents.ts";

const nothingBeside = { capabilities: new Map<string, string>(), topology: "", listing: "" };
const read = (text: string) => inventoryOf(readSmiXml(text), nothingBeside);

/** The value where it is one, in the words of the drivers recorded here. */
const told = (text: string | undefined) =>
  text === undefined || text === "" || /^\[?(N\/A|Not Supported|None|Unknown Error|GPU is lost|ERR!)\]?$/.test(text)
    ? undefined
    : text;
const onOff = (text: string | undefined) => (text === "Enabled" ? true : text === "Disabled" ? false : undefined);

describe.runIf(haveFixtures)("recorded documents", () => {
  it.each(documents)("%s tells what its text tells", (file) => {
    const text = fixture(file);
    const texts = gpuTexts(text);
    expect(texts.length).toBeGreaterThan(0);
    const { gpus, driverVersion, cudaVersion } = read(text);
    expect(gpus.map(({ uuid }) => uuid)).toEqual(
      texts.map((gpu) => told(first(gpu, "uuid"))).filter((uuid) => uuid !== undefined),
    );
    expect(driverVersion).toBe(first(text, "driver_version"));
    expect(cudaVersion).toBe(told(first(text, "cuda_version")));
    for (const [index, gpu] of gpus.entries()) {
      const raw = (texts[index] ?? "").replace(/<mig_devices>[\s\S]*?<\/mig_devices>/, "");
      expect(Gpu.parse(gpu)).toEqual(gpu);
      const power = within(raw, "gpu_power_readings") || within(raw, "power_readings");
      const link = within(raw, "pci_gpu_link_info");
      const current = told(first(power, "current_power_limit")) ?? told(first(power, "enforced_power_limit"));
      expect(gpu).toMatchObject({
        index,
        vendor: "nvidia",
        name: first(raw, "product_name"),
        links: [],
        pci: { busId: told(first(raw, "pci_bus_id")) ?? /^"([^"]+)"/.exec(raw)?.[1] },
      });
      expect({
        vramMiB: gpu.vramMiB,
        powerLimitWatts: gpu.powerLimitWatts,
        generation: gpu.pci?.linkGeneration,
        generationMax: gpu.pci?.linkGenerationMax,
        width: gpu.pci?.linkWidth,
        widthMax: gpu.pci?.linkWidthMax,
        eccEnabled: gpu.eccEnabled,
        persistenceMode: gpu.persistenceMode,
        displayActive: gpu.displayActive,
        computeMode: gpu.computeMode,
        vbiosVersion: gpu.vbiosVersion,
        architecture: gpu.architecture,
        migEnabled: gpu.mig?.enabled,
      }).toEqual({
        vramMiB: numberOf(first(within(raw, "fb_memory_usage"), "total")),
        powerLimitWatts: numberOf(current ?? told(first(power, "power_limit"))),
        generation: numberOf(first(link, "current_link_gen")),
        generationMax: numberOf(first(link, "max_link_gen")),
        width: numberOf(first(link, "current_link_width")),
        widthMax: numberOf(first(link, "max_link_width")),
        eccEnabled: onOff(first(raw, "current_ecc")),
        persistenceMode: onOff(first(raw, "persistence_mode")),
        displayActive: onOff(first(raw, "display_active")),
        computeMode: told(first(raw, "compute_mode")),
        vbiosVersion: told(first(raw, "vbios_version")),
        architecture: told(first(raw, "product_architecture")),
        migEnabled: onOff(first(raw, "current_mig")),
      });
      const lost = />\s*\[?GPU is lost\]?\s*</.test(raw);
      expect(gpu.health.status === "failed").toBe(lost || /row_failure>Yes</.test(raw));
      expect(gpu.allocatable).toBe(gpu.health.status !== "failed");
    }
  });

  it.each(documents)("%s tells the processes its text tells", (file) => {
    const texts = gpuTexts(fixture(file));
    const { gpus, processes } = read(fixture(file));
    for (const [index, gpu] of gpus.entries()) {
      const listed = (texts[index] ?? "").split("<process_info>").slice(1);
      expect(processes.get(gpu.uuid)?.map(({ pid, vramUsedMiB }) => [pid, vramUsedMiB])).toEqual(
        listed.map((part) => [numberOf(first(part, "pid")), numberOf(first(part, "used_memory"))]),
      );
    }
  });

  it("a lost GPU is told as failed, and the others as they are", () => {
    const { gpus, problems } = read(fixture("real-binary-mock-nvml/lost-gpu2-qx.stdout"));
    expect(gpus.map(({ health }) => health.status)).toEqual(
      gpus.map((_, index) => (index === 2 ? "failed" : "healthy")),
    );
    expect(gpus[2]).toMatchObject({ allocatable: false, health: { reasons: [{ code: "gpu_lost" }] } });
    expect(gpus).toHaveLength(8);
    expect(problems).toEqual([]);
  });

  it("a memory row that could not be replaced fails the GPU", () => {
    const { gpus } = read(fixture("xml-mock/gb200-ecc-injected-580.65.06-nvmlmock.xml"));
    expect(gpus[0]?.health.reasons.map(({ code }) => code)).toContain("row_remap_failure");
    expect(gpus[1]?.health).toEqual({ status: "healthy", reasons: [] });
  });

  it("the stream whose GPUs are all lost midway ends with eight lost GPUs", () => {
    const { gpus, problems } = read(fixture("real-binary-mock-nvml/stream-qx-lms500-all-lost-midway.stdout"));
    expect(gpus).toEqual([]);
    expect(problems).toMatchObject([
      { code: "gpu_lost", message: expect.stringContaining("8 GPUs attached, 0 answer") },
    ]);
  });

  it("hostile process names stay names", () => {
    for (const driver of ["580.178.04", "595.99.02"]) {
      const text = fixture(`real-binary-mock-nvml/hostile-process-name-qx-${driver}.stdout`);
      const { gpus, processes } = read(text);
      expect(gpus).toHaveLength(1);
      const names = processes.get(gpus[0]?.uuid ?? "")?.map(({ name }) => name);
      expect(names?.[0]).toBe('python <&> ]]></process_name><x>"evil" -c a,b');
      expect(names?.[1]).toMatch(/^a\nGPU-fake, 1, spoof, 99999\t/);
    }
  });
});

/** A document of its own making, so that the suite holds without recordings. */
const gpuText = (body: string, id = "00000000:01:00.0") => `<gpu id="${id}">${body}</gpu>`;
const log = (body: string) => `<?xml version="1.0" ?><nvidia_smi_log>${body}</nvidia_smi_log>`;

describe("what a document leaves out", () => {
  it("a GPU without a UUID takes the one -L lists, or is a problem", () => {
    const document = readSmiXml(log(gpuText("<product_name>NVIDIA L4</product_name><uuid>GPU is lost</uuid>")));
    expect(inventoryOf(document, nothingBeside)).toMatchObject({ gpus: [], problems: [{ code: "gpu_lost" }] });
    const listing = "GPU 0: NVIDIA L4 (UUID: GPU-1)\n";
    const { gpus } = inventoryOf(document, { ...nothingBeside, listing });
    expect(gpus).toMatchObject([{ uuid: "GPU-1", name: "NVIDIA L4", health: { status: "failed" } }]);
  });

  it("fewer GPUs than attached, none at all, and half a document are problems", () => {
    const one = gpuText("<uuid>GPU-1</uuid>");
    expect(read(log(`<attached_gpus>2</attached_gpus>${one}`)).problems).toMatchObject([{ code: "gpu_lost" }]);
    expect(read(log("<attached_gpus>0</attached_gpus>")).problems).toMatchObject([{ code: "no_devices" }]);
    expect(read(`<nvidia_smi_log>${one}<gpu id="2"><uuid>GPU-2`)).toMatchObject({
      gpus: [{ uuid: "GPU-1" }],
      problems: [{ code: "unreadable" }],
    });
    expect(read("garbage")).toMatchObject({ gpus: [], problems: [{ code: "unreadable" }] });
  });

  it("a GPU of which only an error is told keeps its index to itself", () => {
    const lost = "<error_string>Unable to determine the PCI bus id for the target device: GPU is lost</error_string>";
    const document = readSmiXml(log(`<attached_gpus>2</attached_gpus>${lost}${gpuText("<uuid>GPU-b</uuid>")}`));
    const { gpus, problems } = inventoryOf(document, nothingBeside);
    expect(gpus).toMatchObject([{ index: 1, uuid: "GPU-b" }]);
    expect(problems).toMatchObject([{ code: "gpu_lost" }]);
  });

  it("MIG devices and links belong to the GPU they are listed with", () => {
    const mig = (ids: string) =>
      `<mig_mode><current_mig>Enabled</current_mig></mig_mode><mig_devices><mig_device>${ids}
        <fb_memory_usage><total>4864 MiB</total></fb_memory_usage></mig_device></mig_devices>`;
    const ids = "<gpu_instance_id>7</gpu_instance_id><compute_instance_id>0</compute_instance_id>";
    const text = log(
      `${gpuText("<uuid>GPU-a</uuid>")}${gpuText(`<uuid>GPU-b</uuid>${mig(ids)}<fb_memory_usage><total>40960 MiB</total></fb_memory_usage>`)}`,
    );
    const listing = "GPU 0: A (UUID: GPU-a)\nGPU 1: A (UUID: GPU-b)\n  MIG 1g.5gb      Device  0: (UUID: MIG-x)\n";
    const topology = "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n";
    const { gpus } = inventoryOf(readSmiXml(text), { ...nothingBeside, listing, topology });
    expect(gpus[0]?.mig).toBeUndefined();
    expect(gpus[0]?.links).toEqual([{ gpu: "GPU-b", kind: "nvlink", count: 4 }]);
    expect(gpus[1]).toMatchObject({
      links: [{ gpu: "GPU-a", kind: "nvlink", count: 4 }],
      vramMiB: 40960,
      mig: {
        enabled: true,
        instances: [{ uuid: "MIG-x", profile: "1g.5gb", vramMiB: 4864, gpuInstanceId: 7, computeInstanceId: 0 }],
      },
    });
  });

  it("figures that a broken driver prints leave what is told a GPU of the wire", () => {
    const text = `<nvidia_smi_log><gpu id="1"><uuid>GPU-1</uuid><fb_memory_usage><total>24564.5 MiB</total><used>1e9 MiB</used><reserved>99999999999999999999 MiB</reserved></fb_memory_usage><pci><pci_gpu_link_info><pcie_gen><max_link_gen>4.5</max_link_gen><current_link_gen>99999999999999999999</current_link_gen></pcie_gen></pci_gpu_link_info></pci><clocks><sm_clock>300.4 MHz</sm_clock></clocks><processes><process_info><pid>99999999999999999999</pid></process_info></processes></gpu></nvidia_smi_log>`;
    const { gpus, samples, processes } = read(text);
    expect(gpus).toMatchObject([{ uuid: "GPU-1", vramMiB: 24_565, pci: { linkGenerationMax: 5 } }]);
    expect(gpus.map((gpu) => Gpu.safeParse(gpu).success)).toEqual([true]);
    expect(samples).toEqual([{ uuid: "GPU-1", vramUsedMiB: 1, vramTotalMiB: 24_565, smClockMHz: 300 }]);
    expect(processes.get("GPU-1")).toEqual([]);
  });

  it("a GPU that tells another's UUID, or one that is none, is a problem and not lent", () => {
    const gpu = (uuid: string) => `<gpu id="${uuid.length}"><uuid>${uuid}</uuid></gpu>`;
    const long = `GPU-${"x".repeat(200)}`;
    const { gpus, problems } = read(`<nvidia_smi_log>${gpu("GPU-1")}${gpu("GPU-1")}${gpu(long)}</nvidia_smi_log>`);
    expect(gpus.map(({ uuid }) => uuid)).toEqual(["GPU-1"]);
    expect(problems.map(({ code }) => code)).toEqual(["unreadable", "gpu_lost"]);
    expect(problems[0]?.message).toContain("tells the UUID of another");
  });

  it("the driver's own compute capability comes before the name's", () => {
    const document = readSmiXml(log(gpuText("<product_name>NVIDIA L4</product_name><uuid>GPU-1</uuid>")));
    const capabilities = new Map([["GPU-1", "9.0"]]);
    expect(inventoryOf(document, { ...nothingBeside, capabilities }).gpus[0]?.computeCapability).toBe("9.0");
    expect(inventoryOf(document, nothingBeside).gpus[0]?.computeCapability).toBe("8.9");
  });

  it("a GPU with no memory of its own shares the host's", () => {
    const body =
      "<product_name>NVIDIA GB10</product_name><uuid>GPU-1</uuid><fb_memory_usage><total>N/A</total></fb_memory_usage>";
    const [gpu] = read(log(gpuText(body))).gpus;
    expect(gpu).toMatchObject({ unified: true, computeCapability: "12.1" });
    expect(gpu?.vramMiB).toBeUndefined();
  });

  it.each([
    [
      "<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>",
      "degraded",
      "row_remap_pending",
    ],
    ["<remapped_rows><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>", "failed", "row_remap_failure"],
    [
      "<retired_pages><pending_retirement>Yes</pending_retirement></retired_pages>",
      "degraded",
      "page_retirement_pending",
    ],
    [
      "<retired_pages><pending_blacklist>Yes</pending_blacklist></retired_pages>",
      "degraded",
      "page_retirement_pending",
    ],
    ["<temperature><gpu_temp>[GPU is lost]</gpu_temp></temperature>", "failed", "gpu_lost"],
  ])("%s makes the GPU %s", (body, status, code) => {
    const [gpu] = read(log(gpuText(`<uuid>GPU-1</uuid>${body}`))).gpus;
    expect(gpu?.health).toMatchObject({ status, reasons: [{ code }] });
    expect(gpu?.allocatable).toBe(status !== "failed");
  });
});

describe("what driver 610 tells in another way", () => {
  const limits =
    "<current_power_limit>250.00 W</current_power_limit><requested_power_limit>240.00 W</requested_power_limit>" +
    "<default_power_limit>300.00 W</default_power_limit>";
  const document = (inside: string) =>
    "<nvidia_smi_log><driver_version>610.57.04 [Deprecated; will be removed in CUDA 14.0. Use KMD Version instead]</driver_version>" +
    "<cuda_version>13.3 [Deprecated; will be removed in CUDA 14.0. Use CUDA UMD Version instead]</cuda_version>" +
    `<gpu id="0"><uuid>GPU-a</uuid><gpu_power_readings>${inside}</gpu_power_readings></gpu></nvidia_smi_log>`;

  it.each([
    ["as before", limits],
    ["in a group of its own", `<some_group>${limits}</some_group>`],
  ])("its power limits, %s, and its versions without a remark", (_, inside) => {
    expect(read(document(inside)).gpus).toMatchObject([
      { powerLimitWatts: 250, powerLimitDefaultWatts: 300, driverVersion: "610.57.04", cudaVersion: "13.3" },
    ]);
  });
});
