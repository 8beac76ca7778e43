// The light in the corner: green when all shards answer, yellow when slow or incomplete, red when nobody answers. The reason is always there in words.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { health } from "../api/client";
import { useIsLive } from "../api/feed";
import { latencies, noteLatency, p95 } from "../api/latency";

const POLL_MS = 2_000;
const SLOW_P95_MS = 1_000;

export type Light = "green" | "yellow" | "red";
export interface Connection {
  light: Light;
  reason: string;
  /** Whether changes come by themselves. */
  isPushed: boolean;
  node: string | null;
  /** When the node last answered, epoch milliseconds. */
  lastAnswerMs: number | null;
}

export function useConnection(): Connection {
  const query = useQuery({
    queryKey: ["health"],
    queryFn: async ({ signal }) => {
      const start = performance.now();
      const answer = await health(signal);
      noteLatency(performance.now() - start);
      return answer;
    },
    refetchInterval: POLL_MS,
    refetchIntervalInBackground: false,
    retry: false,
  });
  const [lastAnswerMs, setLast] = useState<number | null>(null);
  useEffect(() => {
    if (query.dataUpdatedAt && !query.isError) setLast(query.dataUpdatedAt);
  }, [query.dataUpdatedAt, query.isError]);
  const isPushed = useIsLive();
  const node = query.data?.node ?? null;
  const said = (light: Light, reason: string): Connection => ({ light, reason, isPushed, node, lastAnswerMs });
  if (query.isError) return said("red", `${node ?? "The node"} does not answer`);
  if (!query.data) return said("yellow", "Asking the node");
  const { shards, status, reasons, warnings = [], unreached = [] } = query.data;
  if (status !== "ok") {
    return said(status === "failing" ? "red" : "yellow", reasons?.join("; ") || `The node says ${status}`);
  }
  if (unreached.length) {
    return said(
      "yellow",
      `${unreached.join(", ")} ${unreached.length > 1 ? "are" : "is"} not reached; all ${shards.total} shards answer`,
    );
  }
  const slow = p95(latencies.recent(performance.now()));
  if (slow !== null && slow > SLOW_P95_MS) {
    return said("yellow", `Slow: 95 % of answers within ${Math.round(slow)} ms`);
  }
  return said("green", [`All ${shards.total} shards of ${node} answer`, ...warnings].join("; "));
}
