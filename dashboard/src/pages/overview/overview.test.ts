import { describe, expect, it } from "vitest";
import { Problem } from "../../api/client";
import { columnAt, share, smoothed, sum } from "./columns";
import { featureMetric } from "./features";
import { foreignFilter } from "./usePanel";

describe("figures of the overview", () => {
  it("bring two answers together by time, not by place", () => {
    const data = [{ time: "2026-01-01T00:01:00Z", values: { count: 7 } }];
    const times = ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"].map((t) => Date.parse(t));
    expect(columnAt(times, { data } as never, "count")).toEqual([null, 7]);
  });

  it("keep unknown apart from nought", () => {
    expect([sum([null, null]), sum([null, 0]), sum([])]).toEqual([null, 0, null]);
    expect([share(1, 0), share(null, 5), share(0, 5)]).toEqual([null, null, 0]);
  });

  it("smooth a share by what is counted around it, and keep what is not known", () => {
    expect(smoothed([0, 3, 0, null], [10, 10, 10, null], 3)).toEqual([0.15, 0.1, 0.15, null]);
    expect(smoothed([0, 0], [0, 0], 3)).toEqual([null, null]);
    expect(smoothed([1, null, 0], [2, 2, 6], 5), "as far as the ends").toEqual([0.1, 0.1, 0.1]);
  });

  it("find the metric that counts features however it spells the dimension", () => {
    const metric = (name: string, dimensions: string[], events = ["feature_used"]) =>
      ({ name, kind: "defined", dimensions, events }) as never;
    expect(featureMetric([metric("a", ["page"]), metric("b", ["properties.feature"])])).toEqual({
      metric: "b",
      dimension: "properties.feature",
    });
    expect(featureMetric([metric("a", ["feature"], ["other"])])).toBeNull();
  });

  it("name the filter that a metric cannot be asked with", () => {
    const error = new Problem({
      title: "unknown dimension",
      status: 422,
      code: "unknown_dimension",
      detail: "`*` has no dimension `feature`; it has source",
    });
    const result = { error, data: undefined };
    expect(foreignFilter([result], ["source:web", "feature:x"])).toBe("feature:x");
    expect(foreignFilter([{ error: null, data: undefined }], ["a:b"])).toBeNull();
  });
});
