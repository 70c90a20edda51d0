import * as z from "zod";
import { type Answer, bodyOf, type CloudNotices, jsonOf, type MetadataClient, type Notice } from "./metadata.ts";

/**
 * Amazon EC2 ("Instance metadata and user data", IMDSv2; "Spot Instance interruption notices"; "EC2 instance rebalance recommendations"). A
 * spot instance is told two minutes ahead that it will be stopped or terminated, and at once that it hibernates; before that may come a
 * recommendation to leave. Both are 404 while there is none. AWS recommends to look every five seconds.
 */
export const AWS_URL = "http://169.254.169.254";

const TOKEN = "/latest/api/token";
const INTERRUPTION = "/latest/meta-data/spot/instance-action";
const REBALANCE = "/latest/meta-data/events/recommendations/rebalance";

const TOKEN_SECONDS = 21_600;
/** A token is renewed so long before it ends. */
const TOKEN_SLACK_MS = 60_000;
/** The announced time is two minutes ahead; what is further from now than this is no time of an interruption. */
const TIME_MS = { past: 10 * 60_000, ahead: 60 * 60_000 };
/** The recommendation stays for the instance's life, and most instances live on: it keeps new work away for so long. */
const REBALANCE_MS = 60 * 60_000;

const Instant = z.iso.datetime().transform((text) => Date.parse(text));
const Interruption = z.object({ action: z.enum(["stop", "terminate", "hibernate"]), time: Instant });
const Rebalance = z.object({ noticeTime: Instant });

/** `steady` measures the token's life. */
export function awsNotices(client: MetadataClient, steady: () => number): CloudNotices {
  let token: { text: string; until: number } | undefined;

  const tokenOf = async (signal: AbortSignal): Promise<string> => {
    if (token !== undefined && steady() < token.until) return token.text;
    const headers = { "X-aws-ec2-metadata-token-ttl-seconds": String(TOKEN_SECONDS) };
    const text = bodyOf(await client.get(TOKEN, { method: "PUT", headers }, signal), TOKEN);
    if (!/^[\x21-\x7e]{1,4096}$/.test(text)) throw new Error(`${TOKEN} was answered with something that is no token`);
    token = { text, until: steady() + TOKEN_SECONDS * 1000 - TOKEN_SLACK_MS };
    return text;
  };
  const ask = async (path: string, signal: AbortSignal): Promise<Answer> =>
    client.get(path, { headers: { "X-aws-ec2-metadata-token": await tokenOf(signal) } }, signal);
  /** undefined where there is none. */
  const read = async (path: string, signal: AbortSignal): Promise<string | undefined> => {
    let answer = await ask(path, signal);
    if (answer.status === 401) {
      token = undefined;
      answer = await ask(path, signal);
    }
    return answer.status === 404 ? undefined : bodyOf(answer, path);
  };

  return {
    intervalMs: 5_000,
    async read(now, signal) {
      const interruption = await read(INTERRUPTION, signal);
      if (interruption !== undefined) return [interruptionOf(interruption, now)];
      const rebalance = await read(REBALANCE, signal);
      return rebalance === undefined ? [] : rebalanceOf(rebalance, now);
    },
  };
}

function interruptionOf(body: string, now: number): Notice {
  const { action, time } = jsonOf(body, INTERRUPTION, Interruption);
  if (time < now - TIME_MS.past || time > now + TIME_MS.ahead) {
    throw new Error(`${INTERRUPTION} tells of an interruption at ${new Date(time).toISOString()}, which cannot be`);
  }
  const key = `${action} ${time}`;
  if (action === "hibernate") return { key, work: "stop", message: "AWS hibernates this spot instance now" };
  const verb = { stop: "stops", terminate: "terminates" }[action];
  return { key, work: "stop_in_time", at: time, message: `AWS ${verb} this spot instance at ${clock(time)}` };
}

function rebalanceOf(body: string, now: number): Notice[] {
  const { noticeTime } = jsonOf(body, REBALANCE, Rebalance);
  if (noticeTime > now + TIME_MS.past || noticeTime < now - REBALANCE_MS) return [];
  const message = "AWS recommends to leave this spot instance: it may be interrupted soon";
  return [{ key: `rebalance ${noticeTime}`, work: "warn", message }];
}

function clock(instant: number): string {
  return `${new Date(instant).toISOString().slice(11, 19)} UTC`;
}
