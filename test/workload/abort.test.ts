import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { linkedController, orAborted } from "../../src/workload/abort.ts";

describe("orAborted", () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => unhandled.push(reason);

  beforeEach(() => {
    unhandled.length = 0;
    process.on("unhandledRejection", note);
  });
  afterEach(() => {
    process.off("unhandledRejection", note);
  });

  it("settles as the promise does and leaves no listener", async () => {
    const { signal } = new AbortController();
    await expect(orAborted(Promise.resolve(7), signal)).resolves.toBe(7);
    await expect(orAborted(Promise.reject(new Error("no")), signal)).rejects.toThrow("no");
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  it("rejects with the reason where the signal comes first", async () => {
    const controller = new AbortController();
    const waiting = orAborted(new Promise(() => undefined), controller.signal);
    controller.abort(new Error("leaving"));
    await expect(waiting).rejects.toThrow("leaving");
  });

  it.each([true, false])("handles a failure nobody waits for any more (aborted before: %s)", async (before) => {
    const controller = new AbortController();
    const failing = Promise.withResolvers<never>();
    if (before) controller.abort(new Error("leaving"));
    const waiting = orAborted(failing.promise, controller.signal);
    if (!before) controller.abort(new Error("leaving"));
    await expect(waiting).rejects.toThrow("leaving");
    failing.reject(new Error("the engine is away"));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(unhandled).toEqual([]);
  });
});

describe("a linked controller", () => {
  it("is aborted with its parent, before or after it was made", () => {
    const parent = new AbortController();
    const { signal } = linkedController(parent.signal);
    expect(signal.aborted).toBe(false);
    parent.abort("why");
    expect(signal.reason).toBe("why");
    expect(linkedController(parent.signal).signal.reason).toBe("why");
  });

  it("is aborted when its time is over", async () => {
    const { signal } = linkedController(new AbortController().signal, 5);
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(signal.reason).toMatchObject({ name: "TimeoutError" });
  });

  it("unlinked leaves nothing on the parent, and its time never comes", async () => {
    const parent = new AbortController();
    const { signal, unlink } = linkedController(parent.signal, 5);
    unlink();
    expect(getEventListeners(parent.signal, "abort")).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(signal.aborted).toBe(false);
  });
});
