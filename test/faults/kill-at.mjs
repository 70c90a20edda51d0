// Loaded into a daemon with --import: ends it with SIGKILL at the point that GPUNODE_TEST_KILL_AT names, once.
//   commit:STATE:before|after           the commit that brings a workload into STATE, or `event:KIND` any commit with such an event
//   file:CALL PATH-REGEX:before|after        a call of node:fs with such a path (the last, where it has two)
//   engine:METHOD PATH-REGEX:sent|answered   a request to the container engine has been written / its answer has come
// The daemon itself knows nothing of this.
import fs from "node:fs";
import http from "node:http";
import { syncBuiltinESMExports } from "node:module";
import { DatabaseSync, StatementSync } from "node:sqlite";

const point = process.env.GPUNODE_TEST_KILL_AT ?? "";
const [kind, what, when] = /^(\w+):(.*):(\w+)$/.exec(point)?.slice(1) ?? [];
const die = () => process.kill(process.pid, "SIGKILL");

if (kind === "commit") {
  let isDue = false;
  const run = StatementSync.prototype.run;
  const wanted = what.startsWith("event:") ? `"kind":"${what.slice(6)}"` : `"state":"${what}"`;
  StatementSync.prototype.run = function (...values) {
    if (values.some((value) => typeof value === "string" && value.includes(wanted) && !value.includes('"kind":"node"')))
      isDue = true;
    return run.apply(this, values);
  };
  const exec = DatabaseSync.prototype.exec;
  DatabaseSync.prototype.exec = function (sql) {
    if (sql !== "COMMIT" || !isDue) return exec.call(this, sql);
    if (when === "before") die();
    exec.call(this, sql);
    die();
    return undefined;
  };
}

if (kind === "file") {
  const [, call, path] = /^(\w+) (.*)$/.exec(what) ?? [];
  const original = fs[call];
  fs[call] = (...parameters) => {
    const isDue = new RegExp(path).test(parameters.filter((each) => typeof each === "string").at(-1) ?? "");
    if (isDue && when === "before") die();
    const result = original(...parameters);
    if (isDue) die();
    return result;
  };
  syncBuiltinESMExports();
}

if (kind === "engine") {
  const [, method, path] = /^(\w+) (.*)$/.exec(what) ?? [];
  const request = http.request;
  http.request = (...parameters) => {
    const made = request(...parameters);
    if (made.method === method && new RegExp(path).test(made.path)) {
      if (when === "sent") made.once("finish", () => setImmediate(die));
      else made.prependOnceListener("response", die);
    }
    return made;
  };
  syncBuiltinESMExports();
}
