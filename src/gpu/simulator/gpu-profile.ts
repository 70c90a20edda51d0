/** How a board counts memory errors, which decides the element names nvidia-smi prints. */
export type EccCounters = "single-double" | "sram-dram" | "parity-secded";

/** What is fixed about a model: everything nvidia-smi tells that does not depend on load, driver or slot. */
export interface GpuProfile {
  readonly name: string;
  readonly brand: string;
  readonly architecture: string;
  /** `major.minor`. */
  readonly computeCapability: string;
  /** Absent where the GPU has no memory of its own (unified with the host's). */
  readonly vramMiB?: number;
  readonly reservedMiB: number;
  readonly bar1MiB: number;
  readonly multiprocessors: number;
  /** `limit` is absent where the board has none that can be read. */
  readonly watts: {
    readonly idle: number;
    readonly limit?: number;
    readonly min?: number;
    readonly max?: number;
    readonly memory?: number;
  };
  /** MHz; `memory` lists every memory clock, highest first; `step` is the distance between graphics clocks. */
  readonly clocks: {
    readonly idle: number;
    readonly max: number;
    readonly min: number;
    readonly step: number;
    readonly memory: readonly number[];
    readonly memoryIdle: number;
    readonly videoIdle: number;
    readonly video: number;
    readonly applications?: number;
    readonly boost?: number;
  };
  /** Celsius; `margin` boards report distances to the limit (T.Limit) where others report absolute thresholds. */
  readonly celsius: {
    readonly idle: number;
    readonly full: number;
    readonly memory: boolean;
    readonly target?: readonly [target: number, min: number, max: number];
    readonly limits:
      | { readonly kind: "margin"; readonly limit: number; readonly shutdown: number; readonly memory: boolean }
      | {
          readonly kind: "absolute";
          readonly shutdown: number;
          readonly slowdown: number;
          readonly operating: number;
          readonly memory?: number;
        };
  };
  readonly idleState: "P0" | "P8";
  readonly fan: boolean;
  readonly pcieGeneration: number;
  readonly ecc: "on" | "off" | "none";
  readonly eccCounters: EccCounters;
  /** Boards that retire pages (before Ampere) against boards that remap rows; the number is the histogram's banks. */
  readonly remapBanks?: number;
  readonly nvlink?: { readonly links: number; readonly gigabytesPerSecond: string };
  /** Whether the links end in a fabric that a fabric manager completes (NVSwitch of Hopper and later). */
  readonly fabric: boolean;
  readonly pci: { readonly device: string; readonly subsystem: string; readonly subClass: "0" | "2" };
  readonly vbios: string;
  readonly part: { readonly board: string; readonly gpu: string };
  readonly inforom: { readonly image: string; readonly oem: string; readonly ecc: string };
  readonly serial: boolean;
  readonly gsp: boolean;
  readonly mig?: Readonly<Record<string, MigProfile>>;
}

/** One MIG profile as `nvidia-smi mig -lgip` lists it. */
export interface MigProfile {
  readonly profileId: number;
  readonly computeSlices: number;
  readonly memorySlices: number;
  readonly multiprocessors: number;
  readonly vramMiB: number;
  readonly copyEngines: number;
  readonly decoders: number;
  readonly jpegs: number;
  readonly ofas: number;
}
