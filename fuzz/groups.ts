import type { OpenGroup } from "./target.ts";
import { configGroup } from "./targets/config.ts";
import { coordinatorGroup } from "./targets/coordinator.ts";
import { decidersGroup } from "./targets/deciders.ts";
import { engineGroup } from "./targets/engine.ts";
import { framesGroup } from "./targets/frames.ts";
import { hostGroup } from "./targets/host.ts";
import { httpGroup } from "./targets/http.ts";
import { isolationGroup } from "./targets/isolation.ts";
import { metricsGroup } from "./targets/metrics.ts";
import { nvidiaGroup } from "./targets/nvidia.ts";
import { sessionGroup } from "./targets/session.ts";
import { storeGroup } from "./targets/store.ts";

/** All there is to fuzz. */
export const GROUPS: Readonly<Record<string, OpenGroup>> = {
  nvidia: nvidiaGroup,
  frames: framesGroup,
  session: sessionGroup,
  coordinator: coordinatorGroup,
  host: hostGroup,
  config: configGroup,
  engine: engineGroup,
  http: httpGroup,
  isolation: isolationGroup,
  store: storeGroup,
  deciders: decidersGroup,
  metrics: metricsGroup,
};
