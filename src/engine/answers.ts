import * as z from "zod";

/**
 * The parts of the Docker API's answers this room reads (API 1.41, https://docs.docker.com/reference/api/engine/). Go's
 * empty maps and lists travel as `null` or not at all, depending on the version. Each schema is made when the first such answer comes.
 */
const strings = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);
const labels = z
  .record(z.string(), z.string())
  .nullish()
  .transform((map) => map ?? {});
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? "");
const count = z
  .number()
  .nullish()
  .transform((value) => value ?? 0);

/** What only grows from 0. CPU time is in nanoseconds, which pass 2^53 within days on a large machine. */
const quantity = z
  .number()
  .min(0)
  .nullish()
  .transform((value) => value ?? 0);
const bytes = z
  .int()
  .min(0)
  .nullish()
  .transform((value) => value ?? 0);

export const DeviceRequest = z.lazy(() => z.object({ Driver: text, DeviceIDs: strings }));
export type DeviceRequest = z.infer<typeof DeviceRequest>;

export const ContainerAnswer = z.lazy(() =>
  z.object({
    Id: z.string(),
    Name: z.string(),
    State: z.object({
      Status: z.enum(["created", "running", "paused", "restarting", "removing", "exited", "dead"]),
      Pid: count,
      ExitCode: count,
      OOMKilled: z
        .boolean()
        .nullish()
        .transform((value) => value ?? false),
      Error: text,
      StartedAt: text,
      FinishedAt: text,
    }),
    Config: z.object({ Labels: labels }),
    HostConfig: z.object({
      DeviceRequests: z
        .array(DeviceRequest)
        .nullish()
        .transform((list) => list ?? []),
    }),
  }),
);
export type ContainerAnswer = z.infer<typeof ContainerAnswer>;

/** What a container was made of, as far as `put-file.ts` asks. */
export const ContainerVolumesAnswer = z.lazy(() =>
  z.object({
    /** Id of its image. */
    Image: z.string(),
    Config: z.object({
      /** Folders that its image wants on a volume each. */
      Volumes: z
        .record(z.string(), z.unknown())
        .nullish()
        .transform((map) => map ?? {}),
    }),
    Mounts: z
      .array(z.object({ Type: text, Name: text, Destination: text }))
      .nullish()
      .transform((list) => list ?? []),
  }),
);
export type ContainerVolumes = z.infer<typeof ContainerVolumesAnswer>;

/** The list with `size=true`. */
export const ContainerSizesAnswer = z.lazy(() =>
  z.array(
    z.object({
      Id: z.string(),
      SizeRw: count,
      Mounts: z
        .array(z.object({ Type: text, Name: text, Destination: text }))
        .nullish()
        .transform((list) => list ?? []),
    }),
  ),
);

export const DiskUsageAnswer = z.lazy(() =>
  z.object({
    Volumes: z
      .array(z.object({ Name: z.string(), UsageData: z.object({ Size: count }).nullish() }))
      .nullish()
      .transform((list) => list ?? []),
  }),
);

export const ContainerListAnswer = z.lazy(() => z.array(z.object({ Id: z.string() })));

export const EventAnswer = z.lazy(() =>
  z.object({
    Type: text,
    Action: text,
    Actor: z.object({ ID: text }).nullish(),
  }),
);

export const ImageAnswer = z.lazy(() =>
  z.object({
    Id: z.string(),
    RepoDigests: strings,
    Size: count,
    Architecture: text,
    Os: text,
    Config: z
      .object({ Env: strings, User: text })
      .nullish()
      .transform((config) => config ?? { Env: [], User: "" }),
  }),
);
export type ImageAnswer = z.infer<typeof ImageAnswer>;

export const ImageListAnswer = z.lazy(() =>
  z.array(z.object({ Id: z.string(), RepoDigests: strings, RepoTags: strings, Size: count, Labels: labels })),
);

/** One line of a pull's progress. */
export const PullLine = z.lazy(() =>
  z.object({
    id: z.string().exactOptional(),
    status: z.string().exactOptional(),
    progressDetail: z
      .object({
        current: z.number().exactOptional(),
        total: z.number().exactOptional(),
        /** `s` where the engine counts seconds instead of bytes. */
        units: z.string().exactOptional(),
      })
      .exactOptional(),
    error: z.string().exactOptional(),
    errorDetail: z.object({ message: z.string().exactOptional() }).exactOptional(),
  }),
);
export type PullLine = z.infer<typeof PullLine>;

export const VersionAnswer = z.lazy(() =>
  z.object({
    Version: z.string(),
    ApiVersion: z.string(),
    /** Podman answers as Docker does and names itself here. */
    Components: z
      .array(z.object({ Name: text }))
      .nullish()
      .transform((list) => list ?? []),
    Platform: z
      .object({ Name: text })
      .nullish()
      .transform((platform) => platform ?? { Name: "" }),
  }),
);

export const InfoAnswer = z.lazy(() =>
  z.object({
    Driver: z.string().exactOptional(),
    DriverStatus: z.array(z.tuple([z.string(), z.string()])).nullish(),
    /** `name=seccomp,profile=default`, `name=apparmor`, `name=userns` … */
    SecurityOptions: z.array(z.string()).nullish(),
    MemoryLimit: z.boolean().exactOptional(),
    CpuCfsQuota: z.boolean().exactOptional(),
    PidsLimit: z.boolean().exactOptional(),
    DockerRootDir: z.string().exactOptional(),
    CgroupVersion: z.string().exactOptional(),
    CgroupDriver: z.string().exactOptional(),
    LiveRestoreEnabled: z.boolean().exactOptional(),
    Runtimes: z.record(z.string(), z.unknown()).nullish(),
    InitBinary: text,
    InitCommit: z.object({ ID: text }).nullish(),
  }),
);

export const CreateAnswer = z.lazy(() => z.object({ id: z.string() }));

export const ExecAnswer = z.lazy(() =>
  z.object({
    Running: z.boolean(),
    ExitCode: z.number().nullish(),
    Pid: count,
  }),
);

/** dockerode makes an object with the id of it. */
export const CreateNetworkAnswer = z.lazy(() => z.object({ id: z.string() }));

export const NetworkListAnswer = z.lazy(() => z.array(z.object({ Id: z.string(), Name: z.string() })));

export const NetworkAnswer = z.lazy(() =>
  z.object({
    Id: z.string(),
    Name: z.string(),
    Labels: labels,
    Options: labels,
    IPAM: z.object({
      Config: z
        .array(z.object({ Gateway: text }))
        .nullish()
        .transform((list) => list ?? []),
    }),
    Containers: z
      .record(z.string(), z.object({ IPv4Address: text, IPv6Address: text }))
      .nullish()
      .transform((map) => map ?? {}),
  }),
);
export type NetworkAnswer = z.infer<typeof NetworkAnswer>;

const networkCounters = z.lazy(() => z.object({ rx_bytes: bytes, tx_bytes: bytes }));

export const StatsAnswer = z.lazy(() =>
  z.object({
    read: z.string(),
    cpu_stats: z.object({ cpu_usage: z.object({ total_usage: quantity }) }),
    memory_stats: z.object({
      usage: z.number().min(0).exactOptional(),
      limit: z.number().min(0).exactOptional(),
      stats: z.record(z.string(), z.number()).nullish(),
    }),
    networks: z.record(z.string(), networkCounters).nullish(),
  }),
);
export type StatsAnswer = z.infer<typeof StatsAnswer>;
