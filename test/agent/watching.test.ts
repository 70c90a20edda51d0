import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { startRegistry } from "../../src/demo/registry.ts";
import { haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { Pty } from "../support/pty.ts";
import { Site } from "./rig.ts";
import { sh } from "./story.ts";

const program = join(resolve(import.meta.dirname, "../.."), "bin/gpunode.js");

describe.runIf(haveEngine)("the owner leaves status --watch open", () => {
  test("what is pulled, runs, is taken back and was lent is seen as it happens", async () => {
    await using registry = await startRegistry();
    const slow = { bytesPerSecond: 2 * 1024 * 1024 };
    const large = registry.add("agent/large:1", await smallImage({ paddingBytes: 80 * 1024 * 1024 }), slow);
    const image = await pushImage("agent/watched:1", await smallImage());
    await using site = await Site.open();
    await site.client.submit({ id: "short", image, command: sh("sleep 1"), gpus: { count: 1 } });
    await site.ends("short");

    const watching = `${process.execPath} ${program} status --watch --config ${site.rig.config}`;
    await using pty = new Pty(watching, { columns: 150, rows: 40 });
    await pty.shows(/^rig {2}available/);
    await pty.shows(/^coordinator +connected for /m);
    await pty.shows(/^lent +today 0\.\d+ GPU-hours, .* 7 days 0\.\d+ GPU-hours/m);
    await pty.shows(/^short +succeeded/m);

    // Takes a while to go.
    const command = sh("trap 'sleep 6; exit 0' TERM; while :; do sleep 0.1; done");
    await site.client.submit({ id: "train", image, command, gpus: { count: 1 }, stop: { graceSeconds: 30 } });
    await site.client.submit({ id: "next", image: large, command: sh("true"), gpus: { count: 1 } });
    const [, gpu] = await pty.shows(/^train +running +\d+ s +(\d) .*MiB/m);
    await pty.shows(new RegExp(`^ +${gpu} {2}.* train$`, "m"));
    await pty.shows(/^next +pulling .* ━+.* \d+ % .* left .*\/\d+\.\d MiB .* [\d.]+ MiB\/s/m);

    expect(site.rig.gpunode("reclaim", "--gpu", gpu ?? "", "--no-wait").status).toBe(0);
    const [, first] = await pty.shows(
      new RegExp(`^▲ train leaves GPU ${gpu} in (\\d+) s: taken back by its owner`, "m"),
    );
    const [, second] = await pty.shows(new RegExp(`^▲ train leaves GPU ${gpu} in (?!${first} )(\\d+) s`, "m"));
    expect(Number(second)).toBeLessThan(Number(first));
    await pty.shows(/^train +stopping .* gone in \d+ s/m);
    await pty.shows(/^train +preempted /m);
    expect(pty.text).not.toContain("▲");
    await pty.shows(new RegExp(`^not lent +GPU ${gpu}: taken back by its owner$`, "m"));

    await site.goAway();
    await pty.shows(/^coordinator +not connected for \d+ s {2}next try in \d+ s/m);
    await site.rig.end("SIGTERM");
    await pty.shows(/^rig {2}not running since /);
    site.rig.start();
    await pty.shows(/^rig {2}available/);
    await site.comeBack();
    await pty.shows(/^coordinator +connected for /m);
    pty.type("q");
    expect(await pty.ended).toBe(0);
    await site.client.release("next");
    await site.ends("next");
  });
});
