import * as z from "zod";
import { ERROR_CODES } from "./errors.ts";

export const ErrorCode = z.enum(ERROR_CODES);

/** Tells the peer that a frame it sent could not be used; the session goes on. `ref` is the frame's `id` if it had one. */
export const ErrorFrame = z.object({
  type: z.literal("error"),
  code: ErrorCode,
  message: z.string(),
  ref: z.string().exactOptional(),
});
