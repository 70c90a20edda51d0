import { parse as parseToml } from "smol-toml";
import { askEngine } from "../../engine/about.ts";
import { startTicks } from "../../host/cgroup.ts";
import { bootTimeMs } from "../../host/clock.ts";
import type { CdiSpec, EngineFacts, ToolkitFacts } from "../facts.ts";
import type { Machine } from "../machine.ts";
import { groupName } from "../users.ts";
import { deviceFiles } from "./gpus.ts";
import type { Reader } from "./reader.ts";

const ENGINE_MS = 5_000;
/** USER_HZ, which is 100 on every architecture that GPUs are in. */
const TICKS_PER_SECOND = 100;

export const engine: Reader<"engine"> = {
  after: ["config"],
  limitMs: ENGINE_MS + 1_000,
  async read({ machine, now }, had, signal): Promise<EngineFacts> {
    const socket = had("config")?.config.docker.socket ?? "/var/run/docker.sock";
    const look = machine.look(socket);
    const group = look === undefined ? undefined : groupName(machine, look.gid);
    const program = machine.program("dockerd");
    const daemonJsonProblem = jsonProblem(machine.text("/etc/docker/daemon.json"));
    const startedAtMs = engineStart(machine, now);
    const around = {
      socket,
      ...(look !== undefined && { look }),
      ...(group !== undefined && { group }),
      ...(program !== undefined && { program }),
      ...(startedAtMs !== undefined && { startedAtMs }),
      ...(daemonJsonProblem !== undefined && { daemonJsonProblem }),
    };
    try {
      return { ...around, about: await askEngine(machine.at(socket), { timeoutMs: ENGINE_MS, signal }) };
    } catch (error) {
      return { ...around, problem: error instanceof Error ? error.message : String(error) };
    }
  },
};

function jsonProblem(text: string | undefined): string | undefined {
  if (text === undefined || text.trim() === "") return undefined;
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function engineStart(machine: Machine, now: () => number): number | undefined {
  const pid = Number(machine.text("/var/run/docker.pid")?.trim() || Number.NaN);
  const ticks = Number.isInteger(pid) ? startTicks(pid, machine.at("/proc")) : undefined;
  return ticks === undefined ? undefined : bootTimeMs(now) + (Number(ticks) / TICKS_PER_SECOND) * 1000;
}

const CONFIG = "/etc/nvidia-container-runtime/config.toml";
/** Where specifications lie, in the order in which engines read them (CDI, "Specification locations"). */
const SPEC_FOLDERS = ["/etc/cdi", "/var/run/cdi"];
const SOURCE_FOLDERS = ["/etc/apt/sources.list.d", "/etc/yum.repos.d", "/etc/zypp/repos.d"];

export const toolkit: Reader<"toolkit"> = {
  limitMs: 3_000,
  read({ machine }): ToolkitFacts {
    const [hook, cdiHook, ctk] = ["nvidia-container-runtime-hook", "nvidia-cdi-hook", "nvidia-ctk"].map(
      machine.program,
    );
    const hookChangedAtMs = hook === undefined ? undefined : machine.look(hook)?.changedAtMs;
    const { mode, noCgroups } = runtimeConfig(machine.text(CONFIG));
    return {
      ...(hook !== undefined && { hook }),
      ...(hookChangedAtMs !== undefined && { hookChangedAtMs }),
      ...(cdiHook !== undefined && { cdiHook }),
      ...(ctk !== undefined && { ctk }),
      ...(mode !== undefined && { mode }),
      noCgroups,
      specs: SPEC_FOLDERS.flatMap((folder) => specsIn(machine, folder)),
      hasRefresh: ["/etc", "/usr/lib", "/lib"].some(
        (top) => machine.look(`${top}/systemd/system/nvidia-cdi-refresh.service`) !== undefined,
      ),
      unlinked: [...deviceFiles(machine)].flatMap(([path, { device }]) =>
        device === undefined || machine.link(`/dev/char/${device.major}:${device.minor}`) !== undefined ? [] : [path],
      ),
      hasSource: SOURCE_FOLDERS.some((folder) =>
        machine.names(folder).some((name) => /libnvidia-container/.test(machine.text(`${folder}/${name}`) ?? "")),
      ),
    };
  },
};

function runtimeConfig(text: string | undefined): { mode?: string; noCgroups: boolean } {
  try {
    const table = parseToml(text ?? "") as Record<string, Record<string, unknown> | undefined>;
    const mode = table["nvidia-container-runtime"]?.mode;
    const noCgroups = table["nvidia-container-cli"]?.["no-cgroups"] === true;
    return { ...(typeof mode === "string" && { mode }), noCgroups };
  } catch {
    return { noCgroups: false };
  }
}

/** NVIDIA's specifications of GPUs. They are YAML or JSON; what is wanted of them can be read of either by its words. */
function specsIn(machine: Machine, folder: string): CdiSpec[] {
  return machine
    .names(folder)
    .filter((name) => /\.(?:ya?ml|json)$/.test(name))
    .flatMap((name) => {
      const path = `${folder}/${name}`;
      const text = machine.text(path) ?? "";
      if (!/"?kind"?:\s*"?nvidia\.com\/gpu"?/.test(text)) return [];
      const versions = [...text.matchAll(/\/lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.\d+(?:\.\d+)?)/g)].map(
        ([, one = ""]) => one,
      );
      const devices = [...text.matchAll(/^\s*(?:- )?"?name"?:\s*"?([\w:.-]+)"?,?\s*$/gm)].map(([, one = ""]) => one);
      return [{ path, versions: [...new Set(versions)], devices: [...new Set(devices)] }];
    });
}
