import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Answer, Row } from "./answer";
import { applyDelta, LiveFeed, type Stream } from "./live";

const receipt = {
  complete: true,
  from: "2026-01-01T00:00:00Z",
  to: "2026-01-01T01:00:00Z",
  shards: { asked: 16, answered: 16 },
  watermark: null,
  freshness_ms: 1,
  error: {},
  sampled: 1,
  other_share: 0,
  sources: ["hot"],
  grain: "1m",
  cache_age_ms: null,
  took_ms: 1,
};
const answer = (data: Row[]): Answer => ({ data, cursor: null, receipt });
const row = (group: string, count: number | null): Row => ({ group: { g: group }, values: { count } });
const at = (minute: number, count: number): Row => ({
  time: `2026-01-01T00:${String(minute).padStart(2, "0")}:00Z`,
  values: { count },
});

describe("a delta", () => {
  it("changes, adds and removes rows by time and group", () => {
    const before = answer([at(1, 10), at(2, 20)]);
    const after = applyDelta("metric=*&step=1m", before, {
      changed: [at(3, 30), at(2, 25)],
      removed: [{ time: "2026-01-01T00:01:00Z" }],
      receipt: { ...receipt, took_ms: 9 },
    });
    expect(after.data).toEqual([at(2, 25), at(3, 30)]);
    expect(after.receipt.took_ms).toBe(9);
    expect(before.data).toEqual([at(1, 10), at(2, 20)]);
  });

  it("keeps the order that was asked for, unknown values last", () => {
    const ranked = answer([row("a", 9), row("b", 5), row("c", 1)]);
    const delta = { changed: [row("c", 7), row("d", null)], removed: [] };
    const names = (query: string) => applyDelta(query, ranked, delta).data.map((r) => r.group?.g);
    expect(names("metric=*&agg=count&order=-value")).toEqual(["a", "c", "b", "d"]);
    expect(names("metric=*&agg=count&order=value")).toEqual(["b", "c", "a", "d"]);
  });

  it("tells groups apart whatever order their dimensions come in, and none from empty", () => {
    const both = (values: number): Row => ({ group: { x: "1", y: null }, values: { count: values } });
    const start = answer([both(1), { group: { x: "1", y: "" }, values: { count: 2 } }]);
    const after = applyDelta("metric=*", start, {
      changed: [{ group: { y: null, x: "1" }, values: { count: 5 } }],
      removed: [],
    });
    expect(after.data.map((r) => r.values.count).sort()).toEqual([2, 5]);
  });
});

class FakeStream implements Stream {
  readyState = 0;
  readonly #listeners = new Map<string, (event: MessageEvent) => void>();
  constructor(readonly url: string) {}
  addEventListener(type: string, listener: (event: MessageEvent) => void) {
    this.#listeners.set(type, listener);
  }
  close() {
    this.readyState = 2;
  }
  send(type: string, data?: unknown) {
    this.#listeners.get(type)?.({ data: JSON.stringify(data) } as MessageEvent);
  }
  get queries() {
    return new URL(this.url, "http://node").searchParams.getAll("query");
  }
}

describe("the stream of a tab", () => {
  let streams: FakeStream[] = [];
  const last = () => streams.at(-1) as FakeStream;
  const feed = () =>
    new LiveFeed((url) => {
      streams.push(new FakeStream(url));
      return last();
    });
  beforeEach(() => {
    vi.useFakeTimers();
    streams = [];
  });
  afterEach(() => vi.useRealTimers());

  it("is one for all questions, opened once when they have settled", () => {
    const live = feed();
    live.watch("metric=b", () => {});
    live.watch("metric=a", () => {});
    const stop = live.watch("metric=a", () => {});
    vi.advanceTimersByTime(1_000);
    expect(streams).toHaveLength(1);
    expect(last().queries).toEqual(["metric=a&partial=allow", "metric=b&partial=allow"]);
    stop();
    vi.advanceTimersByTime(1_000);
    expect(streams).toHaveLength(1);
    live.watch("metric=c", () => {});
    vi.advanceTimersByTime(1_000);
    expect(streams).toHaveLength(2);
    expect(streams[0]?.readyState).toBe(2);
  });

  it("hands out snapshots and merged deltas, and knows which answers are kept up to date", () => {
    const live = feed();
    const seen: Answer[] = [];
    live.watch("metric=a", (a) => seen.push(a));
    vi.advanceTimersByTime(1_000);
    expect(live.isLive("metric=a")).toBe(false);
    last().send("snapshot", { query: 0, answer: answer([at(1, 1)]) });
    expect(live.isLive("metric=a")).toBe(true);
    last().send("delta", { query: 0, changed: [at(1, 2)], removed: [] });
    expect(seen.map((a) => a.data[0]?.values.count)).toEqual([1, 2]);
  });

  it("is not live while it connects again, and goes on from what was known", () => {
    const live = feed();
    const seen: Answer[] = [];
    live.watch("metric=a", (a) => seen.push(a));
    vi.advanceTimersByTime(1_000);
    last().send("snapshot", { query: 0, answer: answer([at(1, 1)]) });
    last().send("error");
    expect(live.isLive("metric=a")).toBe(false);
    last().send("open");
    expect(live.isLive("metric=a")).toBe(true);
    last().send("delta", { query: 0, changed: [at(2, 5)], removed: [] });
    expect(seen.at(-1)?.data).toEqual([at(1, 1), at(2, 5)]);
  });

  it("is not live for a question that the node cannot answer for now, until it can", () => {
    const live = feed();
    live.watch("metric=a", () => {});
    live.watch("metric=b", () => {});
    vi.advanceTimersByTime(1_000);
    for (const query of [0, 1]) last().send("snapshot", { query, answer: answer([at(1, 1)]) });
    last().send("problem", { query: 1, problem: { status: 503 } });
    expect([live.isLive("metric=a"), live.isLive("metric=b")]).toEqual([true, false]);
    last().send("delta", { query: 1, changed: [at(1, 2)], removed: [] });
    expect(live.isLive("metric=b")).toBe(true);
  });

  it("tries again later and later when it is refused", () => {
    const live = feed();
    live.watch("metric=a", () => {});
    vi.advanceTimersByTime(1_000);
    for (const [waitMs, opened] of [
      [4_900, 1],
      [200, 2],
      [9_900, 2],
      [200, 3],
    ] as const) {
      if (last().readyState !== 2) {
        last().readyState = 2;
        last().send("error");
      }
      vi.advanceTimersByTime(waitMs);
      expect(streams).toHaveLength(opened);
    }
  });

  it("asks for a fresh stream when it cannot follow", () => {
    const live = feed();
    live.watch("metric=a", () => {});
    vi.advanceTimersByTime(1_000);
    last().send("delta", { query: 0, changed: [at(1, 2)], removed: [] });
    expect(last().readyState).toBe(2);
    vi.advanceTimersByTime(6_000);
    expect(streams).toHaveLength(2);
  });

  it("is closed in a tab that nobody looks at", () => {
    const live = feed();
    live.watch("metric=a", () => {});
    vi.advanceTimersByTime(1_000);
    live.setPaused(true);
    expect(last().readyState).toBe(2);
    live.setPaused(false);
    vi.advanceTimersByTime(1_000);
    expect(streams).toHaveLength(2);
  });
});
