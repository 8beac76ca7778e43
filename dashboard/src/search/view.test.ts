import { describe, expect, it } from "vitest";
import { LIVE_ROWS_MAX } from "../api/live";
import { queryString } from "../api/query";
import { FINE_DAYS_MAX, fineStepFor, rangeMs, rowsFor, stepFor, timeOf, viewSchema } from "./view";

describe("the view in the address", () => {
  it("drops what cannot be read and keeps the rest", () => {
    expect(viewSchema.parse({ range: "7 days", tz: "UTC", compare: "never", filter: ["a:b"] })).toEqual({
      tz: "UTC",
      filter: ["a:b"],
    });
  });

  it("takes a custom range before a relative one", () => {
    const view = viewSchema.parse({ range: "6h", from: "2026-01-01T00:00:00Z", to: "2026-01-03T00:00:00Z" });
    expect(timeOf(view)).toEqual({ from: "2026-01-01T00:00:00Z", to: "2026-01-03T00:00:00Z" });
    expect(rangeMs(view)).toBe(2 * 86_400_000);
    expect(stepFor(view)).toBe("15m");
  });

  it("asks for as many rows as the range has steps, minute by minute up to a week", () => {
    const steps = ["1h", "24h", "2d", "7d", "8d", "60d"].map((range) => fineStepFor({ range }));
    expect(steps).toEqual(["1m", "1m", "1m", "1m", "1h", "1d"]);
    expect(rowsFor({ range: "24h" }, "1m")).toBe(1_442);
    expect(rowsFor({ range: `${FINE_DAYS_MAX}d` }, "1m"), "the node pushes it").toBeLessThanOrEqual(LIVE_ROWS_MAX);
  });

  it("spells equal questions equally", () => {
    const query = { metric: "a b", groupBy: ["x,y", "z"], filters: ["device_type:mobile"], range: "1h" };
    expect(queryString(query)).toBe("metric=a+b&range=1h&group_by=x%5C%2Cy%2Cz&filter=device_type%3Amobile");
  });
});
