import { leadingCount } from "./figures.ts";
import type { Inventory, SmiProcess } from "./inventory.ts";
import { propertiesOf } from "./properties.ts";
import { absentValue } from "./xml.ts";

/** What a full read tells of a GPU beside what is advertised of it. */
export interface GpuDetails {
  /** By the names of `--query-gpu`, in nvidia-smi's units: see `PROPERTIES`. */
  properties: ReadonlyMap<string, number>;
  /** The number in `/dev/nvidia0`. */
  minorNumber?: number;
  serial?: string;
  /** Eight hexadecimal digits: device, then vendor. */
  pciSubSystemId?: string;
  driverModel: { current?: string; pending?: string };
  processes: readonly SmiProcess[];
}

/** Of one read, so that those who ask again before the next one get the same. */
const known = new WeakMap<NonNullable<Inventory["raw"]>, ReadonlyMap<string, GpuDetails>>();

/** By UUID; GPUs the last read did not tell of are left out. */
export function detailsOf({ raw, processes }: Pick<Inventory, "raw" | "processes">): ReadonlyMap<string, GpuDetails> {
  if (raw === undefined) return new Map();
  const details = known.get(raw) ?? read(raw, processes);
  known.set(raw, details);
  return details;
}

function read(raw: NonNullable<Inventory["raw"]>, processes: Inventory["processes"]): ReadonlyMap<string, GpuDetails> {
  return new Map(
    [...raw].map(([uuid, values]): [string, GpuDetails] => {
      const text = (path: string) => absentValue(values.get(path));
      const minorNumber = leadingCount(text("minor_number"));
      const [serial, pciSubSystemId] = [text("serial"), text("pci/pci_sub_system_id")];
      const [current, pending] = [text("driver_model/current_dm"), text("driver_model/pending_dm")];
      return [
        uuid,
        {
          properties: propertiesOf(values),
          ...(minorNumber !== undefined && { minorNumber }),
          ...(serial !== undefined && { serial }),
          ...(pciSubSystemId !== undefined && { pciSubSystemId }),
          driverModel: { ...(current !== undefined && { current }), ...(pending !== undefined && { pending }) },
          processes: processes.get(uuid) ?? [],
        },
      ];
    }),
  );
}
