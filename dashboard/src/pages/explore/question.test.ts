import { describe, expect, it } from "vitest";
import { type Answer, answerSchema, type Row } from "../../api/answer";
import { dimensionOf, filterFor, queryString } from "../../api/query";
import {
  groupKey,
  groupSeries,
  questionSchema,
  restOf,
  seriesQuery,
  stepOf,
  totalQuery,
  totalSeries,
} from "./question";

const answer = (data: Row[]): Answer =>
  answerSchema.parse({
    data,
    cursor: null,
    receipt: {
      complete: true,
      from: "2026-01-01T00:00:00Z",
      to: "2026-01-01T02:00:00Z",
      shards: { asked: 1, answered: 1 },
      watermark: null,
      freshness_ms: 0,
      error: {},
      sampled: 1,
      other_share: 0,
      sources: [],
      grain: "1h",
      cache_age_ms: null,
      took_ms: 0,
    },
  });
const [T0, T1] = ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"];

describe("the question in the address", () => {
  it("survives anything and keeps what can be read", () => {
    const read = questionSchema.parse({ metric: "a", agg: ["count", "nope"], step: "3h", top: 7, group: "x" });
    expect(read).toEqual({ metric: "a" });
    expect(stepOf(questionSchema.parse({ range: "1h" }))).toBe("1m");
  });

  it("asks for the top groups with their values escaped, none among them", () => {
    const q = questionSchema.parse({ metric: "m", range: "1h", group: ["p,age"], compare: "previous" });
    const top: Row[] = [
      { group: { "p,age": "a|b" }, values: { count: 2 } },
      { group: { "p,age": null }, values: { count: 1 } },
    ];
    const asked = seriesQuery(q, "UTC", top);
    expect(asked.filters).toEqual(["p\\,age:a\\|b|"]);
    expect(asked.limit).toBe(20_000);
    expect(seriesQuery({ ...q, range: "90d", step: "1m" }, "UTC", top).limit).toBe(100_000);
    expect(asked.compare).toBeUndefined();
    expect(queryString(asked)).toContain("group_by=p%5C%2Cage");
    expect(totalQuery(q, "UTC").compare).toBe("previous");
  });

  it("finds the dimension of a filter again", () => {
    for (const name of ["plain", "a:b", "back\\slash", "x,y|z"]) {
      expect(dimensionOf(filterFor(name, "v:1"))).toBe(name);
      expect(dimensionOf(`!${filterFor(name, null)}`)).toBe(name);
    }
  });
});

describe("what is drawn", () => {
  const total = answer([
    { time: T0, values: { count: 10 }, compare: { time: "2025-12-31T00:00:00Z", values: { count: 4 } } },
    { time: T1, values: { count: null } },
  ]);
  const top: Row[] = [{ group: { d: "x" }, values: { count: 6 } }];

  it("adds up the rest of an additive aggregate, and knows nothing where nothing is known", () => {
    const parts = answer([{ time: T0, group: { d: "x" }, values: { count: 6 } }]);
    const { series } = groupSeries(questionSchema.parse({ group: ["d"] }), top, parts, total);
    expect(series.map((s) => [s.label, s.values])).toEqual([
      ["x", [6, null]],
      ["Other", [4, null]],
    ]);
    expect(series[0]?.key).toBe(groupKey(top[0]?.group));
  });

  it("asks for every step of a long range", () => {
    expect(totalQuery({ range: "24h", step: "1m" }, "UTC").limit).toBe(20_000);
    expect(totalQuery({ range: "30d", step: "1m" }, "UTC").limit).toBe(100_000);
  });

  it("says what the groups that are shown leave of the whole, where groups add up", () => {
    const whole = answer([{ values: { count: 10, users: 5 } }]);
    expect(restOf(top, whole, "count")).toBe(4);
    expect(restOf(top, whole, "users")).toBeNull();
    expect(restOf(top, undefined, "count")).toBeNull();
  });

  it("has no rest where groups do not add up", () => {
    const users = answer([{ time: T0, values: { users: 10 } }]);
    const { series } = groupSeries(questionSchema.parse({ group: ["d"], agg: ["users"] }), top, answer([]), users);
    expect(series.map((s) => s.label)).toEqual(["x"]);
  });

  it("puts the compared period beside, pale", () => {
    const { series } = totalSeries(questionSchema.parse({ compare: "previous" }), total);
    expect(series.map((s) => [s.values, s.isFaint ?? false])).toEqual([
      [[10, null], false],
      [[4, null], true],
    ]);
  });
});
