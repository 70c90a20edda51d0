import { setTimeout as sleep } from "node:timers/promises";
import { engineBridges, removeAbandonedEngines } from "../../src/demo/engine-teardown.ts";

/** Started by an interrupted test run as it exits: removes the engine in the folder named once its owner is gone. */
const dir = process.argv[2];
for (let attempt = 0; attempt < 40 && engineBridges().some((bridge) => bridge.dir === dir); attempt++) {
  await removeAbandonedEngines({});
  await sleep(250);
}
