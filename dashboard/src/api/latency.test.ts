import { describe, expect, it } from "vitest";
import { Latencies, p95 } from "./latency";

describe("how slow the node is", () => {
  it("is what it was lately: a slow start is forgotten", () => {
    const latencies = new Latencies();
    for (let i = 0; i < 20; i++) latencies.note(3_000, 1_000 + i);
    expect(p95(latencies.recent(2_000))).toBe(3_000);
    latencies.note(10, 70_000);
    expect(p95(latencies.recent(70_000))).toBe(10);
    expect(p95(latencies.recent(200_000))).toBeNull();
  });
});
