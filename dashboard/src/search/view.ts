// What every page shows is in its address: range, zone, comparison and filters. Reading never fails: a bad part is as if it were not there.
import { z } from "zod";
import { isZone } from "../lib/zone";

export const RANGES = ["1h", "6h", "24h", "7d"] as const;

export const viewSchema = z.object({
  range: z
    .string()
    .regex(/^\d{1,4}[mhd]$/)
    .optional()
    .catch(undefined),
  from: z.iso.datetime({ offset: true }).optional().catch(undefined),
  to: z.iso.datetime({ offset: true }).optional().catch(undefined),
  tz: z.string().refine(isZone).optional().catch(undefined),
  compare: z.enum(["previous", "week", "day"]).optional().catch(undefined),
  filter: z.array(z.string().max(2_000)).max(20).optional().catch(undefined),
});
export type View = z.infer<typeof viewSchema>;

/** The time part of a query: a custom range wins over a relative one. */
export function timeOf(view: View): { range: string } | { from: string; to: string } {
  if (view.from && view.to) return { from: view.from, to: view.to };
  return { range: view.range ?? "24h" };
}

const UNIT_MS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

export function rangeMs(view: View): number {
  const time = timeOf(view);
  if ("from" in time) return Date.parse(time.to) - Date.parse(time.from);
  return Number.parseInt(time.range, 10) * (UNIT_MS[time.range.slice(-1)] ?? 60_000);
}

/** The step that gives a readable number of points. */
export function stepFor(view: View): "1m" | "5m" | "15m" | "1h" | "1d" {
  const hours = rangeMs(view) / 3_600_000;
  if (hours <= 3) return "1m";
  if (hours <= 12) return "5m";
  if (hours <= 48) return "15m";
  if (hours <= 24 * 45) return "1h";
  return "1d";
}

/**
 * The longest range that is drawn minute by minute, days: 10 080 steps. It stays below what the node pushes (20 000 rows) and is quick to draw; a month
 * of minutes would be neither.
 */
export const FINE_DAYS_MAX = 7;

/** Minute by minute, up to a week; beyond that the step of every other chart. */
export function fineStepFor(view: View): ReturnType<typeof stepFor> {
  return rangeMs(view) <= FINE_DAYS_MAX * 86_400_000 ? "1m" : stepFor(view);
}

/** Rows of an answer step by step: asked for in so many words, as the node's default is fewer. */
export function rowsFor(view: View, step: string): number {
  return Math.ceil(rangeMs(view) / (STEP_MS[step] ?? 60_000)) + 2;
}

export const STEP_MS: Record<string, number> = {
  "1m": 60_000,
  "5m": 300_000,
  "15m": 900_000,
  "1h": 3_600_000,
  "1d": 86_400_000,
};

export const COMPARISONS = { previous: "previous period", day: "day before", week: "week before" } as const;

/** A click on a step shows that step; short ones with what is around them. */
export function zoomOf(startMs: number, stepMs: number): { from: string; to: string } {
  const spread = Math.max(0, Math.ceil((ZOOM_MIN_MS - stepMs) / 2 / 60_000)) * 60_000;
  const iso = (ms: number) => new Date(ms).toISOString();
  return { from: iso(startMs - spread), to: iso(startMs + stepMs + spread) };
}
const ZOOM_MIN_MS = 15 * 60_000;
