import { sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { advertise, agent, api, coordinator, type Frame, type Key, newKey, scratch } from "./agent-side.ts";

/** What a node with `from`'s key says to be known by `to`'s. */
function rotation(challenge: Frame, host: string, from: Key, to: Key): Frame["rotation"] {
  const bytes = Buffer.from(["gpunode.v1 rotate", host, challenge.nonce, from.id, to.publicKey].join("\n"));
  const [proof, signature] = [from, to].map((key) => sign(null, bytes, key.privateKey).toString("base64url"));
  return { publicKey: to.publicKey, proof, signature };
}

/** The handshake of a node that moves from one key to the other. Returns the welcome, or the reject. */
async function rotate(url: string, from: Key, to: Key, changes: (made: Frame["rotation"]) => object = (made) => made) {
  const side = agent(url, { key: from });
  const challenge = await side.next("challenge");
  const host = new URL(url).host;
  side.send(side.hello(challenge, host, { rotation: changes(rotation(challenge, host, from, to)) }));
  const answer = await side.until(
    () => side.frames.find(({ type }) => type === "welcome" || type === "reject"),
    "answer",
  );
  return { side, answer };
}

const job = { id: "job", image: "team/job:1", command: ["true"] };
const told = { workload: "job", generation: 1, state: "accepted" };

describe("a node that brings a new key", () => {
  it("is the same node under another id: its work, its events and its acks go with it", async () => {
    const stateDir = scratch();
    const house = await coordinator({ stateDir, joinTokens: ["t-1"], joinTokenUses: 1 });
    const [old, key] = [newKey(), newKey()];
    const before = agent(house.url, { key: old });
    await before.start(advertise(), { joinToken: "t-1" });
    expect((await api(house, "POST", "/workloads", job)).body).toMatchObject({ node: old.id });
    await before.next("assign");
    before.tell([{ seq: 1, ...told }]);
    expect(await before.next("ack")).toMatchObject({ seq: 1 });

    const { side, answer } = await rotate(house.url, old, key);
    expect(answer).toMatchObject({ type: "welcome", rotatedTo: key.id, acked: 1 });
    // The session of the old key is over.
    expect((await before.end()).code).toBe(4409);
    side.send(advertise());
    expect((await side.next("sync")).workloads).toMatchObject([{ id: "job", generation: 1 }]);
    side.tell([{ seq: 2, ...told, state: "pulling" }]);
    await side.next("ack");

    const { body } = await api(house, "GET", "/nodes");
    expect(body.nodes).toMatchObject([
      {
        id: key.id,
        publicKey: key.publicKey,
        connected: true,
        workloads: ["job"],
        replaces: [{ id: old.id, publicKey: old.publicKey, retiredAt: expect.any(String) }],
      },
    ]);
    const { events, ...workload } = (await api(house, "GET", "/workloads/job")).body;
    expect(workload).toMatchObject({ node: key.id, state: "pulling" });
    expect(events.map((event: Frame) => [event.node, event.seq])).toEqual([
      [key.id, 1],
      [key.id, 2],
    ]);
    const lost = await api(house, "GET", `/nodes/${old.id}`);
    expect([lost.status, lost.body.error.message]).toEqual([404, `${old.id} has a new key, and is ${key.id} now`]);

    // And all of that over a restart.
    await house.close();
    const again = await coordinator({ stateDir, joinTokens: ["t-1"] });
    const back = agent(again.url, { key });
    expect(await back.join()).toMatchObject({ acked: 2 });
    back.send(advertise());
    expect((await back.next("sync")).workloads).toMatchObject([{ id: "job" }]);
  });

  it("is refused under the old one from then on, with a join token too, and is told what it is now", async () => {
    const house = await coordinator({ joinTokens: ["t-1"] });
    const [old, key] = [newKey(), newKey()];
    await agent(house.url, { key: old }).join({ joinToken: "t-1" });
    await rotate(house.url, old, key);
    const thief = agent(house.url, { key: old });
    thief.send(thief.hello(await thief.next("challenge"), new URL(house.url).host, { joinToken: "t-1" }));
    expect(await thief.next("reject")).toMatchObject({ code: "refused", message: expect.stringContaining(key.id) });
    expect((await thief.end()).code).toBe(4403);
    // Nor can whoever has the old key take it elsewhere.
    const { answer } = await rotate(house.url, old, newKey());
    expect(answer).toMatchObject({ type: "reject", code: "refused" });
    await agent(house.url, { key }).join();
  });

  it("may say it again where the welcome got lost, and may move on after that", async () => {
    const house = await coordinator();
    const [first, second, third] = [newKey(), newKey(), newKey()];
    await agent(house.url, { key: first }).join();
    expect((await rotate(house.url, first, second)).answer).toMatchObject({ rotatedTo: second.id });
    expect((await rotate(house.url, first, second)).answer).toMatchObject({ type: "welcome", rotatedTo: second.id });
    expect((await rotate(house.url, second, third)).answer).toMatchObject({ rotatedTo: third.id });
    expect((await rotate(house.url, first, second)).answer).toMatchObject({ type: "reject", code: "refused" });
    const { nodes } = (await api(house, "GET", "/nodes")).body;
    expect(nodes).toHaveLength(1);
    expect(nodes[0].replaces.map(({ id }: Frame) => id)).toEqual([first.id, second.id]);
  });

  it("may come with it at its first handshake", async () => {
    const house = await coordinator();
    const [old, key] = [newKey(), newKey()];
    expect((await rotate(house.url, old, key)).answer).toMatchObject({ rotatedTo: key.id });
    expect((await api(house, "GET", "/nodes")).body.nodes).toMatchObject([{ id: key.id }]);
  });

  it("that is another node's is refused, and neither is harmed", async () => {
    const house = await coordinator();
    const [one, other] = [newKey(), newKey()];
    await agent(house.url, { key: one }).join();
    await agent(house.url, { key: other }).join();
    expect((await rotate(house.url, one, other)).answer).toMatchObject({ type: "reject", code: "refused" });
    await agent(house.url, { key: one }).join();
    await agent(house.url, { key: other }).join();
    expect((await api(house, "GET", "/nodes")).body.nodes).toHaveLength(2);
  });

  const [from, to, stranger] = [newKey(), newKey(), newKey()];
  it.each([
    ["the old key's word is missing", (made: Frame["rotation"]) => ({ ...made, proof: "" })],
    ["the old key's word is another's", (made: Frame["rotation"]) => ({ ...made, proof: made.signature })],
    ["the new key is not there", (made: Frame["rotation"]) => ({ ...made, signature: made.proof })],
    ["the new key is another one", (made: Frame["rotation"]) => ({ ...made, publicKey: stranger.publicKey })],
    ["the new key is none", (made: Frame["rotation"]) => ({ ...made, publicKey: "AAAA" })],
    [
      "the words are of another challenge",
      () => rotation({ type: "challenge", nonce: "A".repeat(43) }, "127.0.0.1", from, to),
    ],
  ])("is not believed where %s: 4401, and it stays who it was", async (_what, changes) => {
    const house = await coordinator();
    await agent(house.url, { key: from }).join();
    const { side, answer } = await rotate(house.url, from, to, changes);
    expect(answer).toMatchObject({ type: "reject", code: "not_authenticated" });
    expect((await side.end()).code).toBe(4401);
    expect((await api(house, "GET", "/nodes")).body.nodes).toMatchObject([{ id: from.id }]);
  });
});
