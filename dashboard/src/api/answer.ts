// What the node answers, checked at the door: a shape that is not the documented one is an error to show, not a number to draw.
import { z } from "zod";

export const receiptSchema = z.object({
  complete: z.boolean(),
  from: z.string(),
  to: z.string(),
  shards: z.object({ asked: z.number(), answered: z.number() }),
  watermark: z.string().nullable(),
  freshness_ms: z.number().nullable(),
  error: z.record(z.string(), z.number()),
  sampled: z.number(),
  other_share: z.number(),
  sources: z.array(z.string()),
  grain: z.string().nullable(),
  cache_age_ms: z.number().nullable(),
  took_ms: z.number(),
});
export type Receipt = z.infer<typeof receiptSchema>;

export const valuesSchema = z.record(z.string(), z.number().nullable());
export type Values = z.infer<typeof valuesSchema>;

export const groupSchema = z.record(z.string(), z.string().nullable());

export const rowSchema = z.object({
  time: z.string().optional(),
  group: groupSchema.optional(),
  values: valuesSchema,
  /** The same row of the compared period, at its own time. */
  compare: z.object({ time: z.string().optional(), values: valuesSchema }).nullish(),
});
export type Row = z.infer<typeof rowSchema>;

export const answerSchema = z.object({
  data: z.array(rowSchema),
  cursor: z.string().nullish(),
  receipt: receiptSchema,
});
export type Answer = z.infer<typeof answerSchema>;

export const problemSchema = z.object({
  title: z.string(),
  status: z.number(),
  detail: z.string().optional(),
  code: z.string(),
  request_id: z.string().optional(),
  field: z.string().optional(),
  did_you_mean: z.string().optional(),
  suggested_step: z.string().optional(),
  retry_after_ms: z.number().optional(),
});
export type ProblemBody = z.infer<typeof problemSchema>;

export const healthSchema = z.object({
  status: z.enum(["ok", "degraded", "failing"]),
  reasons: z.array(z.string()).optional(),
  /** What needs a look though everything works, such as a metric over its cardinality budget. */
  warnings: z.array(z.string()).optional(),
  /** Nodes of the fleet that this one does not reach. */
  unreached: z.array(z.string()).optional(),
  buffered_events: z.number(),
  last_flush: z.string().nullable(),
  node: z.string(),
  version: z.string(),
  shards: z.object({ total: z.number(), leading: z.number(), stopped: z.number() }),
});
export type Health = z.infer<typeof healthSchema>;

export const catalogueSchema = z.object({
  metrics: z.array(
    z.object({
      name: z.string(),
      kind: z.string(),
      description: z.string().nullish(),
      dimensions: z.array(z.string()),
      events: z.array(z.string()).optional(),
      cardinality: z.number().nullish(),
    }),
  ),
});
export type Catalogue = z.infer<typeof catalogueSchema>;
export type Metric = Catalogue["metrics"][number];
