import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { get, setGlobalProxyFromEnv } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { detectCloud } from "../../../src/preemption/cloud/detect.ts";
import {
  IMPATIENT,
  json,
  metadataServer,
  missing,
  text,
  USELESS,
  until,
  watched,
} from "../../support/metadata-server.ts";

/** A machine's firmware, as the kernel shows it. */
function dmi(files: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-dmi-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), `${text}\n`);
  return dir;
}

describe("the cloud of a machine is known by its firmware", () => {
  it.each([
    ["EC2 on Nitro", { sys_vendor: "Amazon EC2", product_name: "g5.xlarge", chassis_asset_tag: "Amazon EC2" }, "aws"],
    ["EC2 on Xen", { sys_vendor: "Xen", product_name: "HVM domU", bios_version: "4.11.amazon" }, "aws"],
    ["Google Compute Engine", { sys_vendor: "Google", product_name: "Google Compute Engine" }, "gcp"],
    [
      "Azure",
      {
        sys_vendor: "Microsoft Corporation",
        product_name: "Virtual Machine",
        chassis_asset_tag: "7783-7084-3265-9085-8269-3286-77",
      },
      "azure",
    ],
    [
      "Hyper-V at home",
      { sys_vendor: "Microsoft Corporation", product_name: "Virtual Machine", chassis_asset_tag: "1234" },
      undefined,
    ],
    ["a Chromebook", { sys_vendor: "Google", product_name: "Eve" }, undefined],
    ["Xen at home", { sys_vendor: "Xen", product_name: "HVM domU", bios_version: "4.11.4" }, undefined],
    [
      "a PC",
      { sys_vendor: "ASUS", product_name: "System Product Name", chassis_asset_tag: "Default string" },
      undefined,
    ],
    ["no firmware that tells", {}, undefined],
  ])("%s", (_, files, expected) => {
    expect(detectCloud(dmi(files))).toBe(expected);
  });

  it("and where there is no such folder it is none", () => {
    expect(detectCloud("/nowhere/dmi")).toBeUndefined();
  });
});

it("a machine at home is nobody's cloud, and nothing is ever asked", async () => {
  const { url, requests } = await metadataServer();
  const { watch, lines } = watched({ provider: "auto", metadataUrl: url, dmiDir: dmi({ sys_vendor: "ASUS" }) });
  expect(watch).toBeUndefined();
  expect(lines).toEqual([]);
  expect(requests).toEqual([]);
});

it("a machine of a cloud finds its service by itself", async () => {
  const { url, requests } = await metadataServer();
  const { watch } = watched({ provider: "auto", metadataUrl: url, dmiDir: dmi({ sys_vendor: "Amazon EC2" }) });
  expect(watch).toBeDefined();
  await until(() => expect(requests[0]?.line).toBe("PUT /latest/api/token"));
});

it.each(["aws", "gcp", "azure"] as const)(
  "%s without a service is told once, and asked ever less often",
  async (provider) => {
    const listener = createServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    const { port } = listener.address() as AddressInfo;
    listener.close();
    const pauses = vi.fn();
    let last = Date.now();
    const { raised, warnings } = watched({
      provider,
      metadataUrl: `http://127.0.0.1:${port}`,
      // Each look begins with the time.
      now: () => {
        pauses(Date.now() - last);
        last = Date.now();
        return last;
      },
      times: { intervalMs: 20, longestPauseMs: 320 },
    });
    await until(() => expect(pauses.mock.calls.length).toBeGreaterThanOrEqual(7));
    const lengths = pauses.mock.calls.map(([ms]) => Number(ms));
    // 40, 80, 160, 320, 320: never sooner than that.
    for (const [index, least] of [35, 75, 155, 315, 315].entries()) {
      expect(lengths[index + 1]).toBeGreaterThanOrEqual(least);
    }
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toContain("ECONNREFUSED");
    expect(raised).toEqual([]);
  },
);

it.each([
  ["that hangs", "was not answered within 500 ms"],
  ["that drips", "was not answered within 500 ms"],
  ["that never stops", "the answer is longer than 65536 bytes"],
  ["that hangs up in the middle", "aborted"],
  ["that says garbage", "was answered with something else than is documented"],
  ["that fails", "was answered with HTTP 500"],
])("what is wrong with a service %s is said", async (what, why) => {
  const reply = USELESS[what] ?? missing;
  const { url } = await metadataServer([["GET /metadata/scheduledevents?api-version=2020-07-01", reply]]);
  const { warnings } = watched({ provider: "azure", metadataUrl: url, times: IMPATIENT });
  await until(() => expect(warnings()).toHaveLength(1));
  expect(warnings()[0]).toContain(why);
});

it("a service that sends elsewhere is not followed", async () => {
  const elsewhere = await metadataServer();
  const { url, requests } = await metadataServer([
    ["GET /metadata/scheduledevents?api-version=2020-07-01", text("", 307, { location: elsewhere.url })],
  ]);
  const { warnings } = watched({ provider: "azure", metadataUrl: url });
  await until(() => expect(requests.length).toBeGreaterThan(2));
  expect(warnings()[0]).toContain("was answered with HTTP 307");
  expect(elsewhere.requests).toEqual([]);
});

it("proxies of the environment are not for it", async () => {
  const { url, requests } = await metadataServer();
  // As NODE_USE_ENV_PROXY does at the start of a process; nobody answers there.
  onTestFinished(setGlobalProxyFromEnv({ http_proxy: "http://127.0.0.1:9" }));
  await expect(once(get(url), "response")).rejects.toThrow("ECONNREFUSED");
  watched({ provider: "azure", metadataUrl: url });
  await until(() => expect(requests.length).toBeGreaterThan(2));
});

it("with the watch gone no request is under way, and none comes", async () => {
  const { url, replies, requests } = await metadataServer();
  const closed = vi.fn();
  replies.set("GET /metadata/scheduledevents?api-version=2020-07-01", (_request, response) => {
    response.on("close", closed);
  });
  const { watch, raised, warnings } = watched({
    provider: "azure",
    metadataUrl: url,
    times: { firstTimeoutMs: 60_000 },
  });
  await until(() => expect(requests).toHaveLength(1));
  await watch?.[Symbol.asyncDispose]();
  await until(() => expect(closed).toHaveBeenCalledTimes(1));
  replies.set("GET /metadata/scheduledevents?api-version=2020-07-01", json({ DocumentIncarnation: 1, Events: [] }));
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(requests).toHaveLength(1);
  expect(raised).toEqual([]);
  expect(warnings()).toEqual([]);
});
