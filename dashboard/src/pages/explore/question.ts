// What the explore page asks, in the address beside the view: metric, aggregates, step, grouping, picture.
import { z } from "zod";
import type { Answer, Row } from "../../api/answer";
import { LIVE_ROWS_MAX } from "../../api/live";
import { filterFor, type MetricQuery } from "../../api/query";
import { SERIES_COLORS, type Series } from "../../charts/model";
import { UNKNOWN } from "../../lib/format";
import { rowsFor, stepFor, timeOf, type View, viewSchema } from "../../search/view";

export const AGGREGATES = [
  "count",
  "sum",
  "avg",
  "min",
  "max",
  "last",
  "users",
  "sessions",
  "p50",
  "p90",
  "p95",
  "p99",
] as const;
export const PICTURES = ["line", "bar", "breakdown", "table"] as const;
export const STEPS = ["auto", "1m", "5m", "15m", "1h", "1d"] as const;
/** Of those, what groups add up to; for the others there is no "other". */
const ADDITIVE = new Set(["count", "sum"]);
/** Groups drawn on their own; the rest is "other". */
export const TOPS = [5, 10, 20] as const;
/** Rows of an answer at most. */
const ROWS_MAX = 100_000;
/** A breakdown or table asks for this many groups. */
const GROUPS_MAX = 1_000;

export const questionSchema = viewSchema.extend({
  metric: z.string().max(400).optional().catch(undefined),
  agg: z
    .array(z.string().regex(/^(count|sum|avg|min|max|last|users|sessions|p\d{1,2}(\.\d{1,2})?)$/))
    .min(1)
    .max(6)
    .optional()
    .catch(undefined),
  step: z.enum(STEPS).optional().catch(undefined),
  group: z.array(z.string().max(400)).max(4).optional().catch(undefined),
  picture: z.enum(PICTURES).optional().catch(undefined),
  top: z
    .union(TOPS.map((n) => z.literal(n)) as [z.ZodLiteral<5>, z.ZodLiteral<10>, z.ZodLiteral<20>])
    .optional()
    .catch(undefined),
});
export type Question = z.infer<typeof questionSchema>;

export const metricOf = (q: Question) => q.metric ?? "*";
export const aggregatesOf = (q: Question) => q.agg ?? ["count"];
export const pictureOf = (q: Question) => q.picture ?? "line";
export const topOf = (q: Question) => q.top ?? 5;
export const isOverTime = (q: Question) => pictureOf(q) === "line" || pictureOf(q) === "bar";

export function stepOf(q: Question): string {
  return !q.step || q.step === "auto" ? stepFor(q) : q.step;
}

function base(q: Question, tz: string): MetricQuery {
  return {
    metric: metricOf(q),
    agg: aggregatesOf(q),
    ...timeOf(q as View),
    tz,
    ...(q.compare ? { compare: q.compare } : {}),
    ...(q.filter?.length ? { filters: q.filter } : {}),
  };
}

/** All groups with their values over the whole range, the largest first. */
export function groupsQuery(q: Question, tz: string, limit = GROUPS_MAX): MetricQuery {
  return { ...base(q, tz), ...(q.group?.length ? { groupBy: q.group } : {}), order: "-value", limit };
}

/** Few sizes, so that a range that moves on stays the same question; above what is pushed only when it must be. */
const limitOf = (rows: number) => (rows <= LIVE_ROWS_MAX ? LIVE_ROWS_MAX : ROWS_MAX);

/** What all groups come to together, over the whole range. */
export const wholeQuery = (q: Question, tz: string): MetricQuery => base(q, tz);

/** The sum over all groups, step by step. */
export function totalQuery(q: Question, tz: string): MetricQuery {
  return { ...base(q, tz), step: stepOf(q), fill: "null", limit: limitOf(rowsFor(q, stepOf(q))) };
}

/** The groups in `top`, step by step. */
export function seriesQuery(q: Question, tz: string, top: Row[]): MetricQuery {
  const { compare: _, ...rest } = base(q, tz);
  const groups = q.group ?? [];
  let rows = rowsFor(q, stepOf(q));
  const filters = groups.map((dimension) => {
    const values = [...new Set(top.map((row) => row.group?.[dimension] ?? null))];
    rows *= values.length;
    const parts = values.map((value) => filterFor(dimension, value));
    const prefix = filterFor(dimension, "");
    return prefix + parts.map((part) => part.slice(prefix.length)).join("|");
  });
  return {
    ...rest,
    agg: aggregatesOf(q).slice(0, 1),
    step: stepOf(q),
    groupBy: groups,
    filters: [...(q.filter ?? []), ...filters],
    limit: limitOf(rows),
  };
}

export const groupKey = (group: Row["group"]) => JSON.stringify(Object.entries(group ?? {}).sort());

export function groupLabel(group: Row["group"]): string {
  const values = Object.values(group ?? {});
  return values.length ? values.map((v) => v ?? "(none)").join(" · ") : "All";
}

const timesOf = (total: Answer) => total.data.map((row) => Date.parse(row.time ?? ""));

/** One line for each aggregate, and pale ones for the compared period. */
export function totalSeries(q: Question, total: Answer): { times: number[]; series: Series[] } {
  const kind = pictureOf(q) === "bar" ? "bar" : "line";
  const series = aggregatesOf(q).flatMap((name, i): Series[] => {
    const color = SERIES_COLORS[i % SERIES_COLORS.length] ?? "";
    const now: Series = {
      key: name,
      label: name,
      values: total.data.map((row) => row.values[name] ?? null),
      color,
      kind,
    };
    if (!q.compare) return [now];
    const then = total.data.map((row) => row.compare?.values[name] ?? null);
    return [now, { key: `${name}-before`, label: `${name}, before`, values: then, color, kind: "line", isFaint: true }];
  });
  return { times: timesOf(total), series };
}

/** One line for each of the top groups, and what is left where that can be said. */
export function groupSeries(
  q: Question,
  top: Row[],
  parts: Answer,
  total: Answer,
): { times: number[]; series: Series[] } {
  const kind = pictureOf(q) === "bar" ? "bar" : "line";
  const aggregate = aggregatesOf(q)[0] ?? "count";
  const times = timesOf(total);
  const place = new Map(times.map((time, i) => [time, i]));
  const empty = ADDITIVE.has(aggregate) ? 0 : null;
  const covered = total.data.map((row) =>
    row.values[aggregate] === null || row.values[aggregate] === undefined ? null : empty,
  );
  const series = top.map((row, i): Series => {
    return {
      key: groupKey(row.group),
      label: groupLabel(row.group),
      values: [...covered],
      color: SERIES_COLORS[i % SERIES_COLORS.length] ?? "",
      kind,
    };
  });
  const byKey = new Map(series.map((s) => [s.key, s]));
  for (const row of parts.data) {
    const at = place.get(Date.parse(row.time ?? ""));
    const target = byKey.get(groupKey(row.group));
    if (at !== undefined && target) target.values[at] = row.values[aggregate] ?? null;
  }
  if (ADDITIVE.has(aggregate)) {
    const rest = total.data.map((row, i) => {
      const whole = row.values[aggregate];
      if (whole === null || whole === undefined) return null;
      return Math.max(0, whole - series.reduce((sum, s) => sum + (s.values[i] ?? 0), 0));
    });
    if (rest.some((value) => value))
      series.push({ key: "other", label: "Other", values: rest, color: "var(--series-8)", kind, isFaint: true });
  }
  return { times, series };
}

/** What the groups that are shown leave of the whole; null where groups do not add up, or the whole is not known. */
export function restOf(shown: Row[], whole: Answer | undefined, aggregate: string): number | null {
  const all = whole?.data[0]?.values[aggregate];
  if (!ADDITIVE.has(aggregate) || all === null || all === undefined) return null;
  return Math.max(0, all - shown.reduce((sum, row) => sum + (row.values[aggregate] ?? 0), 0));
}

export const shownGroup = (value: string | null | undefined) => value ?? UNKNOWN;
