import { describe, expect, it } from "vitest";
import { failoverText, lastFailover } from "./failover";

const failover = (at: string) => ({ at, from: "n1", to: "n2", gap_ms: 120 });

describe("the last failover", () => {
  it("is the latest of all shards, or none", () => {
    const shards = [
      { shard: 0, last_failover: null },
      { shard: 1, last_failover: failover("2026-01-01T10:00:00Z") },
      { shard: 2, last_failover: failover("2026-01-01T09:00:00Z") },
    ];
    expect(lastFailover({ shards } as never)?.shard).toBe(1);
    expect(lastFailover({ shards: shards.slice(0, 1) } as never)).toBeNull();
  });

  it("has its time, both nodes and how long nobody led", () => {
    const nowMs = Date.parse("2026-01-01T11:00:00Z");
    expect(failoverText(failover("2026-01-01T10:00:00Z"), "UTC", nowMs)).toBe("10:00:00, n1 → n2, 120 ms");
    expect(failoverText(failover("2025-12-30T10:00:00Z"), "UTC", nowMs)).toBe("Tue 30 Dec, 10:00, n1 → n2, 120 ms");
  });
});
