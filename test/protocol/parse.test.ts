import { describe, expect, it } from "vitest";
import { Assign } from "../../src/protocol/coordinator-frames.ts";
import { ErrorFrame } from "../../src/protocol/error-frame.ts";
import { MAX_FRAME_BYTES } from "../../src/protocol/limits.ts";
import { check, parseFrame } from "../../src/protocol/parse.ts";
import { Workload } from "../../src/protocol/workload.ts";

describe("parseFrame", () => {
  it("reads an object with a type", () => {
    expect(parseFrame('{"type":"ack","seq":3}')).toEqual({ ok: true, value: { type: "ack", seq: 3 } });
  });

  it.each([
    ["", /not JSON/],
    ["{", /not JSON/],
    ["NaN", /not JSON/],
    ["null", /not a JSON object/],
    ['"text"', /not a JSON object/],
    ["[]", /not a JSON object/],
    ["{}", /no "type"/],
    ['{"type":7}', /no "type"/],
  ])("says what is wrong with %j", (text, message) => {
    expect(parseFrame(text)).toMatchObject({
      ok: false,
      problem: { code: "bad_message", message: expect.stringMatching(message) },
    });
  });

  it("keeps the id of a frame without a type, to answer it", () => {
    expect(parseFrame('{"id":"c1"}')).toMatchObject({ problem: { ref: "c1" } });
    expect(parseFrame(`{"id":"${"x".repeat(129)}"}`)).not.toHaveProperty("problem.ref");
    expect(parseFrame('{"id":5}')).not.toHaveProperty("problem.ref");
  });

  it("counts bytes, not characters, against the limit", () => {
    const frame = (data: string) => JSON.stringify({ type: "log", data });
    const around = frame("").length;
    expect(parseFrame(frame("x".repeat(MAX_FRAME_BYTES - around))).ok).toBe(true);
    expect(parseFrame(frame("x".repeat(MAX_FRAME_BYTES - around + 1))).ok).toBe(false);
    const euros = parseFrame(frame("€".repeat(MAX_FRAME_BYTES / 3)));
    expect(euros).toMatchObject({ problem: { message: expect.stringContaining(String(MAX_FRAME_BYTES)) } });
  });

  it("is not confused by a hostile prototype", () => {
    const parsed = parseFrame('{"type":"ack","__proto__":{"polluted":1},"constructor":1}');
    expect(parsed.ok).toBe(true);
    expect({}).not.toHaveProperty("polluted");
  });
});

describe("check", () => {
  it("names the field and what it must be", () => {
    const parsed = check(Workload, { id: "a b", generation: -1, image: "" }, "workload", "c1");
    if (parsed.ok) throw new Error("it must not fit");
    expect(parsed.problem.ref).toBe("c1");
    expect(parsed.problem.message).toMatch(/^workload: id: must be 1-63/);
    expect(parsed.problem.message).toContain("generation: ");
    expect(parsed.problem.message).toContain("image: ");
  });

  it("tells three things at most", () => {
    const parsed = check(Workload, {}, "workload");
    const many = check(Workload, { id: 1, generation: "x", image: 2, priority: "high", preemptible: 3 }, "workload");
    if (parsed.ok || many.ok) throw new Error("it must not fit");
    expect(many.problem.message).toMatch(/; and 2 more$/);
  });
});

describe("what a peer makes of a complaint", () => {
  const complaint = (text: string) => {
    const frame = parseFrame(text);
    const parsed = frame.ok ? check(Assign, frame.value, "assign", frame.value.id) : frame;
    if (parsed.ok) throw new Error("it must not fit");
    return { type: "error", ...parsed.problem };
  };

  it.each([null, 5, "", "x".repeat(129), ["a"], {}])("names no id that is none: %j", (id) => {
    const frame = complaint(JSON.stringify({ type: "assign", id }));
    expect(frame).not.toHaveProperty("ref");
    expect(ErrorFrame.safeParse(frame).success).toBe(true);
  });

  it("fits into a frame, however long the names are that the peer chose", () => {
    const env = { [`${"=".repeat(400_000)}`]: "", [`=${"a".repeat(400_000)}`]: "" };
    const frame = complaint(
      JSON.stringify({ type: "assign", id: "c", workload: { id: "w", generation: 1, image: "x", env } }),
    );
    expect(frame.message).toContain("workload.env");
    expect(frame.message.length).toBeLessThan(1500);
  });
});
