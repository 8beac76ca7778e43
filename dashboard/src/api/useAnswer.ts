import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import type { Answer } from "./answer";
import { ask, Problem } from "./client";
import { feed, useIsLive } from "./feed";
import { noteLatency } from "./latency";
import { LIVE_ROWS_MAX } from "./live";
import { type MetricQuery, queryString } from "./query";

/** How often a panel asks again while nothing pushes, in milliseconds. */
export const POLL_MS = 5_000;

/** The answer to `query`, kept up to date. While a changed question is under way the last answer stays, marked as previous. */
export function useAnswer(query: MetricQuery, options: { enabled?: boolean } = {}) {
  const client = useQueryClient();
  const asked = queryString(query);
  const isEnabled = options.enabled ?? true;
  const isLive = useIsLive(asked);
  const result = useQuery<Answer>({
    queryKey: ["answer", asked],
    queryFn: async ({ signal, queryKey }) => {
      const start = performance.now();
      // The first picture may be of a minute ago. What replaces one has to be newer: the node's kept answer can be older than what the stream has told since.
      const isFirst = client.getQueryData(queryKey) === undefined;
      const answer = await ask(query, isFirst, signal);
      noteLatency(performance.now() - start);
      return answer;
    },
    enabled: isEnabled,
    // What the node will not answer as it is asked, it will not answer in five seconds either.
    refetchInterval: ({ state }) =>
      isLive || (state.error instanceof Problem && state.error.body.status === 422) ? false : POLL_MS,
    placeholderData: keepPreviousData,
  });
  // Only what the node has answered once goes on the stream: one bad question would have it refused for all.
  const isAnswered = isEnabled && result.data !== undefined && !result.isPlaceholderData;
  const isPushable = isAnswered && (query.limit ?? 0) <= LIVE_ROWS_MAX;
  useEffect(() => {
    if (!isPushable) return;
    return feed.watch(asked, (answer) => client.setQueryData(["answer", asked], answer));
  }, [asked, isPushable, client]);
  // A stream that breaks off is most often a node that is gone: ask at once, so that the page says so.
  useEffect(() => {
    if (!isLive) return;
    return () => {
      if (!feed.isLive(asked)) void client.invalidateQueries({ queryKey: ["answer", asked] });
    };
  }, [asked, isLive, client]);
  return { ...result, freshAtMs: Math.max(result.dataUpdatedAt, isAnswered ? feed.heardMs : 0) };
}

export type Result = ReturnType<typeof useAnswer>;

/** Since when what is shown is older than it should be, epoch milliseconds; null while it is not. */
export function staleSince(...results: Result[]): number | null {
  const failed = results.filter((r) => r.isError && r.data);
  return failed.length ? Math.min(...failed.map((r) => r.freshAtMs)) : null;
}
