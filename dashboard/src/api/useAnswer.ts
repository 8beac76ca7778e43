import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { noteLatency } from "../shell/useConnection";
import type { Answer } from "./answer";
import { ask } from "./client";
import { type MetricQuery, queryString } from "./query";

/** How often a panel asks again while nothing pushes, in milliseconds. */
export const POLL_MS = 5_000;

/** The answer to `query`, kept up to date. While a changed question is under way the last answer stays, marked as previous. */
export function useAnswer(query: MetricQuery, options: { enabled?: boolean } = {}) {
  return useQuery<Answer>({
    queryKey: ["answer", queryString(query)],
    queryFn: async ({ signal }) => {
      const start = performance.now();
      const answer = await ask(query, signal);
      noteLatency(performance.now() - start);
      return answer;
    },
    enabled: options.enabled ?? true,
    refetchInterval: POLL_MS,
    placeholderData: keepPreviousData,
  });
}
