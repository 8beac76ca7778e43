// The light in the corner: green when all shards answer, yellow when slow or incomplete, red when nobody answers. The reason is always there in words.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { health } from "../api/client";

const POLL_MS = 2_000;
const SLOW_P95_MS = 1_000;
const SAMPLES_MAX = 60;

export type Light = "green" | "yellow" | "red";
export interface Connection {
  light: Light;
  reason: string;
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
  const node = query.data?.node ?? null;
  if (query.isError) return { light: "red", reason: `${node ?? "The node"} does not answer`, node, lastAnswerMs };
  if (!query.data) return { light: "yellow", reason: "Asking the node", node, lastAnswerMs };
  const { shards, status, reasons } = query.data;
  if (status !== "ok") {
    const light = status === "failing" ? "red" : "yellow";
    return { light, reason: reasons?.join("; ") || `The node says ${status}`, node, lastAnswerMs };
  }
  const slow = p95(took);
  if (slow !== null && slow > SLOW_P95_MS) {
    return { light: "yellow", reason: `Slow: 95 % of answers within ${Math.round(slow)} ms`, node, lastAnswerMs };
  }
  return { light: "green", reason: `All ${shards.total} shards of ${node} answer`, node, lastAnswerMs };
}
