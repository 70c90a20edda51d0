import { expect, it } from "vitest";
import { CoordinatorClient, RefusedError } from "../../src/coordinator/client.ts";
import { advertise, agent, api, coordinator, type Key, newKey, scratch } from "./agent-side.ts";

const job = { id: "job", image: "team/job:1", command: ["true"] };

/** What a node with this key is told when it comes. */
async function knock(url: string, key: Key, changes: object = {}) {
  const side = agent(url, { key });
  side.send(side.hello(await side.next("challenge"), new URL(url).host, { ...changes }));
  const answer = await side.until(
    () => side.frames.find(({ type }) => type === "welcome" || type === "reject"),
    "answer",
  );
  return { side, answer };
}

it("a barred node is out at once, comes in with no token, also after a restart, and with its work again once it may", async () => {
  const stateDir = scratch();
  const house = await coordinator({ stateDir, joinTokens: ["t"] });
  const key = newKey();
  const side = agent(house.url, { key });
  await side.start(advertise(), { joinToken: "t" });
  expect((await api(house, "POST", "/workloads", job)).body).toMatchObject({ node: key.id });
  await side.next("assign");

  const client = new CoordinatorClient(house.apiUrl, {});
  expect(await client.bar(key.id, { reason: "sells what it computes" })).toMatchObject({
    state: "barred",
    barred: { at: expect.any(String), reason: "sells what it computes" },
    workloads: ["job"],
  });
  expect(await side.end()).toEqual({
    code: 4403,
    reason: "the operator of this coordinator has barred this node: sells what it computes",
  });
  for (const changes of [{}, { joinToken: "t" }]) {
    const { side: again, answer } = await knock(house.url, key, changes);
    expect(answer).toMatchObject({
      type: "reject",
      code: "refused",
      message: "the operator of this coordinator has barred this node: sells what it computes",
    });
    expect((await again.end()).code).toBe(4403);
  }
  await house.close();

  const next = await coordinator({ stateDir, joinTokens: ["t"] });
  expect((await knock(next.url, key)).answer.type).toBe("reject");
  expect((await api(next, "POST", "/workloads", { ...job, id: "other" })).body).toMatchObject({ state: "pending" });
  const after = new CoordinatorClient(next.apiUrl, {});
  expect(await after.unbar(key.id)).toMatchObject({ state: "offline" });
  const { side: back, answer } = await knock(next.url, key);
  expect(answer.type).toBe("welcome");
  back.send(advertise());
  expect((await back.next("sync")).workloads).toMatchObject([{ id: "job" }]);
  expect((await after.nodes())[0]).not.toHaveProperty("barred");
});

it("barring somebody who is not there, or with too many words, is refused in words", async () => {
  const house = await coordinator();
  const client = new CoordinatorClient(house.apiUrl, {});
  await expect(client.bar("nobody", {})).rejects.toThrow(RefusedError);
  await expect(client.unbar("nobody")).rejects.toThrow("nobody");
  const side = agent(house.url);
  await side.start();
  await expect(client.bar(side.key.id, { reason: "x".repeat(201) })).rejects.toThrow("reason");
  expect(side.closed).toBeUndefined();
});
