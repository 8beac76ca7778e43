// The light in the corner: green when all shards answer, yellow when slow or incomplete, red when nobody answers. The reason is always there in words.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { health } from "../api/client";
import { useIsLive } from "../api/feed";

const POLL_MS = 2_000;
const SLOW_P95_MS = 1_000;
const SAMPLES_MAX = 60;

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

const took: number[] = [];

/** Every answered query says here how long it took, in milliseconds. */
export function noteLatency(ms: number): void {
  took.push(ms);
  if (took.length > SAMPLES_MAX) took.shift();
}

export function p95(samples: readonly number[]): number | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.floor(0.95 * (sorted.length - 1))] ?? null;
}

export function useConnection(): Connection {
  const query = useQuery({
    queryKey: ["health"],
    queryFn: ({ signal }) => health(signal),
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
  const { shards, status, reasons, warnings = [] } = query.data;
  if (status !== "ok") {
    return said(status === "failing" ? "red" : "yellow", reasons?.join("; ") || `The node says ${status}`);
  }
  const slow = p95(took);
  if (slow !== null && slow > SLOW_P95_MS) {
    return said("yellow", `Slow: 95 % of answers within ${Math.round(slow)} ms`);
  }
  return said("green", [`All ${shards.total} shards of ${node} answer`, ...warnings].join("; "));
}
