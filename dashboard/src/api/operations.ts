// What the cluster and dead-letter pages read.
import { z } from "zod";
import { request, Unreachable } from "./client";

export const clusterSchema = z.object({
  name: z.string(),
  replication: z.number(),
  nodes: z.array(
    z.object({
      id: z.string(),
      name: z.string(),
      version: z.string().nullable(),
      alive: z.boolean(),
      ready: z.boolean(),
      leads: z.number(),
      replicas: z.number(),
      draining: z.boolean(),
      read_only: z.boolean(),
    }),
  ),
  shards: z.array(
    z.object({
      shard: z.number(),
      leader: z.string().nullable(),
      replicas: z.array(
        z.object({
          node: z.string(),
          role: z.enum(["leader", "follower", "learner"]),
          lag: z.number().nullable(),
        }),
      ),
      coming: z.array(z.object({ node: z.string() })),
      term: z.number().nullable(),
      commit: z.number().nullable(),
      applied: z.number().nullable(),
      lag: z.number().nullable(),
      last_snapshot: z.string().nullable(),
      stopped: z.string().nullable(),
      events: z.number().nullable(),
      watermark: z.string().nullable(),
      last_failover: z.object({ at: z.string(), from: z.string(), to: z.string(), gap_ms: z.number() }).nullable(),
    }),
  ),
});
export type Cluster = z.infer<typeof clusterSchema>;
export type Shard = Cluster["shards"][number];

export const deadLettersSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      arrived: z.string(),
      code: z.string(),
      field: z.string().nullish(),
      detail: z.string(),
      index: z.number(),
      request_id: z.string(),
      truncated: z.boolean(),
      raw: z.string(),
    }),
  ),
  cursor: z.string().nullable(),
  total: z.number(),
  bytes: z.number(),
  dropped: z.number(),
});
export type DeadLetters = z.infer<typeof deadLettersSchema>;
export type DeadLetter = DeadLetters["data"][number];

export const retriedSchema = z.object({
  retried: z.number(),
  accepted: z.number(),
  duplicates: z.number(),
  still_rejected: z.number(),
  not_retryable: z.number(),
});
export type Retried = z.infer<typeof retriedSchema>;

export const cluster = (signal?: AbortSignal) => request("/v1/cluster", clusterSchema, signal ? { signal } : {});
export const deadLetters = (cursor: string | null, signal?: AbortSignal) =>
  request(
    `/v1/dead-letters?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`,
    deadLettersSchema,
    signal ? { signal } : {},
  );
export const retryDeadLetters = (ids: string[] | null) =>
  request("/v1/dead-letters/retry", retriedSchema, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(ids ? { ids } : {}),
  });

/** One reading of the node's own metrics: values by name, or by name and labels as written. */
export interface Gauges {
  atMs: number;
  values: Map<string, number>;
}

/** Reads the Prometheus text format; lines it does not know are skipped. */
export function parseExposition(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)/.exec(line);
    if (!found?.[1] || found[3] === undefined) continue;
    const value = Number(found[3]);
    if (Number.isNaN(value)) continue;
    values.set(found[1] + (found[2] ?? ""), value);
    if (found[2]) values.set(found[1], (values.get(found[1]) ?? 0) + value);
  }
  return values;
}

export async function gauges(signal?: AbortSignal): Promise<Gauges> {
  let response: Response;
  try {
    response = await fetch("/metrics", signal ? { signal } : {});
  } catch (error) {
    throw new Unreachable(error);
  }
  return { atMs: Date.now(), values: parseExposition(await response.text()) };
}

/** How much a counter rose per second between two readings; null before there are two, and over a restart. */
export function rate(before: Gauges | null, now: Gauges | null, name: string): number | null {
  const [a, b] = [before?.values.get(name), now?.values.get(name)];
  if (!before || !now || a === undefined || b === undefined || now.atMs <= before.atMs || b < a) return null;
  return ((b - a) * 1_000) / (now.atMs - before.atMs);
}
