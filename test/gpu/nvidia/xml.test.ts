import { describe, expect, it } from "vitest";
import { absentValue, readSmiXml, saysLost } from "../../../src/gpu/nvidia/xml.ts";
import { fixture, haveFixtures } from "../../support/fixtures.ts";
import { documents, first, gpuTexts } from "./documents.ts";

describe.runIf(haveFixtures)("recorded documents", () => {
  it.each(documents)("%s cut anywhere keeps the GPUs that are whole", (file) => {
    const text = fixture(file);
    for (let tenth = 0; tenth < 10; tenth += 1) {
      const cut = text.slice(0, Math.floor((text.length * tenth) / 10));
      const document = readSmiXml(cut);
      expect(document.truncated).toBe(true);
      const whole = gpuTexts(cut).filter((gpu) => gpu.includes("</gpu>"));
      expect(document.gpus.map(({ values }) => values.get("uuid"))).toEqual(whole.map((gpu) => first(gpu, "uuid")));
    }
    expect(readSmiXml(text).truncated).toBe(false);
  });

  // A hostile process name holds a line end of its own.
  it.each(documents.filter((file) => !file.includes("hostile")))(
    "%s reads the same with CRLF line ends and a byte order mark",
    (file) => {
      const text = fixture(file).replaceAll("\r\n", "\n");
      expect(readSmiXml(`\ufeff${text.replaceAll("\n", "\r\n")}`)).toEqual(readSmiXml(text));
    },
  );

  it("of a stream the last whole document counts", () => {
    const text = fixture("real-binary-mock-nvml/stream-qx-lms500-all-lost-midway.stdout");
    const end = text.lastIndexOf("</nvidia_smi_log>") + "</nvidia_smi_log>".length;
    const lastWhole = text.slice(text.lastIndexOf("<nvidia_smi_log>", end), end);
    expect(readSmiXml(text)).toEqual(readSmiXml(lastWhole));
    expect(readSmiXml(lastWhole).truncated).toBe(false);
    // Cut in its last document, the one before counts.
    expect(readSmiXml(text.slice(0, end - 100))).toMatchObject({ truncated: false, gpus: { length: 8 } });
    for (const { values } of readSmiXml(text.slice(0, end - 100)).gpus)
      expect(values.get("utilization/gpu_util")).toBe("GPU is lost");
  });
});

describe("readSmiXml", () => {
  it.each([
    "",
    "   ",
    "No devices were found\n",
    "<gpu></gpu>",
    "<<<<>>>>&&&&",
    "\u0000\u0001\ufffd",
    "</nvidia_smi_log>",
  ])("%j is no document", (text) => {
    expect(readSmiXml(text)).toEqual({ gpus: [], truncated: true });
  });

  it("survives a hundred thousand nested elements", () => {
    const document = readSmiXml(`<nvidia_smi_log><gpu id="1">${"<a>".repeat(100_000)}x`);
    expect(document).toEqual({ gpus: [], truncated: true });
  });

  it("keeps reading after deep nesting that closes", () => {
    const deep = `${"<a>".repeat(1000)}x${"</a>".repeat(1000)}`;
    const text = `<nvidia_smi_log><gpu id="1">${deep}<uuid>GPU-1</uuid></gpu></nvidia_smi_log>`;
    const { gpus, truncated } = readSmiXml(text);
    expect(truncated).toBe(false);
    expect(gpus.map(({ values }) => values.get("uuid"))).toEqual(["GPU-1"]);
  });

  it("bounds a text without end", () => {
    const text = `<nvidia_smi_log><gpu id="1"><uuid>${"&amp;x".repeat(200_000)}</uuid></gpu></nvidia_smi_log>`;
    expect(readSmiXml(text).gpus[0]?.values.get("uuid")?.length).toBeLessThan(1_100_000);
  });

  it("a process and a MIG device do not leak into the GPU", () => {
    const text = `<nvidia_smi_log><gpu id="1"><uuid>GPU-1</uuid>
      <mig_devices><mig_device><index>0</index><uuid>no</uuid></mig_device></mig_devices>
      <processes><process_info><pid>7</pid><process_name>/bin/a &amp; b</process_name></process_info></processes>
    </gpu></nvidia_smi_log>`;
    const [gpu] = readSmiXml(text).gpus;
    expect([...(gpu?.values ?? [])]).toEqual([["uuid", "GPU-1"]]);
    expect(gpu?.migDevices.map((device) => [...device])).toEqual([
      [
        ["index", "0"],
        ["uuid", "no"],
      ],
    ]);
    expect(gpu?.processes[0]?.get("process_name")).toBe("/bin/a & b");
  });
});

describe("absent values", () => {
  it.each(["N/A", "[N/A]", "[Not Supported]", "Not Supported", "[Unknown Error]", "ERR!", "[GPU is lost]", "", "None"])(
    "%j is none",
    (value) => expect(absentValue(value)).toBeUndefined(),
  );
  it.each(["0", "0 MiB", "Disabled", "NVIDIA N/A", "Default"])("%j is one", (value) => {
    expect(absentValue(value)).toBe(value);
  });
  it("a lost GPU says so with and without brackets, alone in the cell", () => {
    expect(["GPU is lost", "[GPU is lost]", "gpu is lost", "the GPU is lost"].map(saysLost)).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  it("leaves clock tables out, and never what is not one", () => {
    const table =
      "<supported_clocks><supported_mem_clock><value>1 MHz</value></supported_mem_clock></supported_clocks>";
    const gpu = (uuid: string, body: string) => `<gpu id="${uuid}">${body}<uuid>${uuid}</uuid></gpu>`;
    const wrap = (body: string) => `<nvidia_smi_log>${body}</nvidia_smi_log>`;
    const read = readSmiXml(wrap(gpu("GPU-a", table) + gpu("GPU-b", `${table}<fan_speed>3 %</fan_speed>`)));
    expect(read.truncated).toBe(false);
    expect(read.gpus.map(({ values }) => [...values])).toEqual([
      [["uuid", "GPU-a"]],
      [
        ["fan_speed", "3 %"],
        ["uuid", "GPU-b"],
      ],
    ]);
    // The first document breaks off inside its table; the second is whole, and its table is the one that ends.
    const cut = `<nvidia_smi_log><gpu id="GPU-x"><uuid>GPU-x</uuid><supported_clocks><supported_mem_clock>`;
    const both = readSmiXml(cut + wrap(gpu("GPU-a", "") + gpu("GPU-b", table)));
    expect(both.gpus.at(-1)?.values.get("uuid")).toBe("GPU-b");
    expect(readSmiXml(cut)).toMatchObject({ truncated: true, gpus: [] });
  });
});
