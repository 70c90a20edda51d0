import * as z from "zod";

export const HealthStatus = z.enum(["healthy", "degraded", "failed"]);

/** Why a GPU is not healthy; `code` is stable, `message` is for a person. */
export const HealthReason = z.object({ code: z.string(), message: z.string() });
export type HealthReason = z.infer<typeof HealthReason>;

export const Health = z.object({ status: HealthStatus, reasons: z.array(HealthReason) });
export type Health = z.infer<typeof Health>;

export const PressureLevel = z.enum(["normal", "elevated", "critical"]);
export type PressureLevel = z.infer<typeof PressureLevel>;
