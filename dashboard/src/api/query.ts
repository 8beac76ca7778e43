// One metric query as the interface spells it. The query string is its identity: cache key, live subscription, and the curl that a person copies.

export interface MetricQuery {
  metric: string;
  agg?: string[];
  /** `24h`, or both `from` and `to` (RFC 3339, half-open). */
  range?: string;
  from?: string;
  to?: string;
  step?: string;
  groupBy?: string[];
  /** `dim:value`, `dim:a|b`, `!dim:value`, `dim:`; all must hold. */
  filters?: string[];
  order?: string;
  limit?: number;
  tz?: string;
  compare?: string;
  fill?: "none" | "zero" | "null";
}

/** In a fixed order, so that equal questions are equal strings. */
export function queryString(query: MetricQuery): string {
  const pairs: [string, string][] = [["metric", query.metric]];
  if (query.agg?.length) pairs.push(["agg", query.agg.join(",")]);
  if (query.from && query.to) pairs.push(["from", query.from], ["to", query.to]);
  else if (query.range) pairs.push(["range", query.range]);
  if (query.step) pairs.push(["step", query.step]);
  if (query.groupBy?.length) pairs.push(["group_by", query.groupBy.map(escapeDimension).join(",")]);
  for (const filter of query.filters ?? []) pairs.push(["filter", filter]);
  if (query.order) pairs.push(["order", query.order]);
  if (query.limit) pairs.push(["limit", String(query.limit)]);
  if (query.tz && query.tz !== "UTC") pairs.push(["tz", query.tz]);
  if (query.compare) pairs.push(["compare", query.compare]);
  if (query.fill && query.fill !== "none") pairs.push(["fill", query.fill]);
  return new URLSearchParams(pairs).toString();
}

function escapeDimension(name: string): string {
  return name.replace(/[\\,]/g, (c) => `\\${c}`);
}

/** A filter that holds where the dimension has exactly this value (`null`: where it has none). */
export function filterFor(dimension: string, value: string | null): string {
  const escaped = (text: string) => text.replace(/[\\|:,]/g, (c) => `\\${c}`);
  return `${escaped(dimension)}:${value === null ? "" : escaped(value)}`;
}

/** The dimension that a filter is about. */
export function dimensionOf(filter: string): string {
  const found = /^!?((?:\\.|[^\\:])*):/.exec(filter);
  return (found?.[1] ?? filter).replace(/\\(.)/g, "$1");
}
