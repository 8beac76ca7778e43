import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { type Cluster as ClusterState, cluster, type Gauges, gauges, rate } from "../../api/operations";
import { number, percent, short, UNKNOWN } from "../../lib/format";
import { Panel } from "../../panels/Panel";
import { Failed, Skeleton } from "../../panels/states";
import { useView } from "../../shell/useView";
import { failoverText, lastFailover } from "./failover";
import { Nodes, ShardMap } from "./ShardMap";
import { ShardTable } from "./ShardTable";

const POLL_MS = 1_000;
/** Readings kept for the rates: the last ten seconds. */
const READINGS_MAX = 10;

export function Cluster() {
  const { tz } = useView();
  const state = useQuery({ queryKey: ["cluster"], queryFn: ({ signal }) => cluster(signal), refetchInterval: POLL_MS });
  const reading = useQuery({ queryKey: ["gauges"], queryFn: ({ signal }) => gauges(signal), refetchInterval: POLL_MS });
  const [readings, setReadings] = useState<Gauges[]>([]);
  useEffect(() => {
    const data = reading.data;
    if (data) setReadings((old) => (old.at(-1)?.atMs === data.atMs ? old : [...old, data].slice(-READINGS_MAX)));
  }, [reading.data]);
  if (state.isError && !state.data) return <Failed error={state.error} onRetry={() => void state.refetch()} />;
  if (!state.data) return <Skeleton height="h-96" />;
  const stale = state.isError ? state.dataUpdatedAt : null;
  return (
    <div className="flex flex-col gap-4">
      <h1 className="sr-only">Cluster</h1>
      <Figures before={readings[0] ?? null} now={readings.at(-1) ?? null} isFleet={state.data.nodes.length > 1} />
      <div className="grid grid-cols-1 gap-4 lg:grid-cols-[1fr_2fr]">
        <Panel
          title="Nodes"
          hint={`${state.data.name}, ${state.data.replication} ${state.data.replication === 1 ? "copy" : "copies"} of each shard`}
          staleSinceMs={stale}
          tz={tz}
        >
          <Nodes state={state.data} />
        </Panel>
        <Panel title="Shards" hint={failoverHint(state.data, tz)} staleSinceMs={stale} tz={tz}>
          <ShardMap state={state.data} />
        </Panel>
      </div>
      <Panel title="Shard details" staleSinceMs={stale} tz={tz}>
        <ShardTable state={state.data} tz={tz} />
      </Panel>
    </div>
  );
}

function failoverHint(state: ClusterState, tz: string): string {
  const last = lastFailover(state);
  const when = last ? `shard ${last.shard}, ${failoverText(last.failover, tz)}` : "none seen";
  return `Each with the node that leads it; last failover: ${when}`;
}

function Figure({ name, value, hint }: { name: string; value: string; hint?: string | undefined }) {
  return (
    <div className="rounded-xl border border-line bg-surface p-4">
      <dt className="text-xs text-muted">{name}</dt>
      <dd className="tabular mt-1 text-2xl font-semibold">{value}</dd>
      {hint ? <dd className="text-xs text-muted">{hint}</dd> : null}
    </div>
  );
}

const bytes = (n: number | null | undefined) =>
  n === null || n === undefined
    ? UNKNOWN
    : n < 1 << 20
      ? `${Math.round(n / 1_024)} KiB`
      : n < 1 << 30
        ? `${(n / (1 << 20)).toFixed(1)} MiB`
        : `${(n / (1 << 30)).toFixed(1)} GiB`;

function quantileMs(now: Gauges | null, q: string): string {
  const seconds = now?.values.get(`tallymesh_query_seconds{quantile="${q}"}`);
  return seconds === undefined ? UNKNOWN : `${number(Math.round(seconds * 10_000) / 10)} ms`;
}

function Figures({ before, now, isFleet }: { before: Gauges | null; now: Gauges | null; isFleet: boolean }) {
  const value = (name: string) => now?.values.get(name);
  const hits = value("tallymesh_query_cache_hits_total");
  const misses = value("tallymesh_query_cache_misses_total");
  const asked = (hits ?? 0) + (misses ?? 0);
  const free = value("tallymesh_disk_free_bytes");
  const total = value("tallymesh_disk_total_bytes");
  const ingest = rate(before, now, "tallymesh_events_total");
  const duplicates = rate(before, now, "tallymesh_duplicates_total");
  return (
    <dl className="grid grid-cols-2 gap-4 md:grid-cols-3 xl:grid-cols-6">
      <Figure
        name="Events per second"
        value={ingest === null ? UNKNOWN : short(Math.round(ingest))}
        hint={[
          ...(isFleet ? ["came to this node"] : []),
          ...(duplicates ? [`${short(Math.round(duplicates))}/s duplicates`] : []),
        ].join(", ")}
      />
      <Figure name="Query time, median" value={quantileMs(now, "0.5")} hint={`p99 ${quantileMs(now, "0.99")}`} />
      <Figure
        name="Cache hits"
        value={asked ? percent((hits ?? 0) / asked) : UNKNOWN}
        hint={asked ? `of ${short(asked)} asked` : "nobody asked yet"}
      />
      <Figure
        name="Disk free"
        value={bytes(free)}
        hint={free !== undefined && total ? `${percent(free / total, 0)} of ${bytes(total)}` : undefined}
      />
      <Figure name="Memory" value={bytes(value("process_resident_memory_bytes"))} hint="resident" />
      <Figure
        name="Log on disk"
        value={bytes(value("tallymesh_log_disk_bytes"))}
        hint={`${short(value("tallymesh_log_segments"))} segments`}
      />
    </dl>
  );
}
