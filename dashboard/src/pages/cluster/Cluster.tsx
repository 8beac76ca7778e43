import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import { type Cluster as ClusterState, cluster, type Gauges, gauges, rate } from "../../api/operations";
import { moment, number, percent, short, UNKNOWN } from "../../lib/format";
import { Panel } from "../../panels/Panel";
import { Failed, Skeleton } from "../../panels/states";
import { useView } from "../../shell/useView";

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
      <Figures before={readings[0] ?? null} now={readings.at(-1) ?? null} />
      <div className="grid grid-cols-1 gap-4 lg:grid-cols-[1fr_2fr]">
        <Panel
          title="Nodes"
          hint={`${state.data.name}, ${state.data.replication} ${state.data.replication === 1 ? "copy" : "copies"} of each shard`}
          staleSinceMs={stale}
          tz={tz}
        >
          <Nodes state={state.data} />
        </Panel>
        <Panel title="Shards" hint="Each with the node that leads it" staleSinceMs={stale} tz={tz}>
          <ShardMap state={state.data} />
        </Panel>
      </div>
      <Panel title="Shard details" staleSinceMs={stale} tz={tz}>
        <ShardTable state={state.data} tz={tz} />
      </Panel>
    </div>
  );
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

function Figures({ before, now }: { before: Gauges | null; now: Gauges | null }) {
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
        hint={duplicates ? `${short(Math.round(duplicates))}/s duplicates` : undefined}
      />
      <Figure name="Query time, p50 / p99" value={quantileMs(now, "0.5")} hint={`p99 ${quantileMs(now, "0.99")}`} />
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

function Badge({ tone, children }: { tone: string; children: ReactNode }) {
  return <span className={`rounded-full border border-current px-2 py-0.5 text-xs ${tone}`}>{children}</span>;
}

function Nodes({ state }: { state: ClusterState }) {
  return (
    <ul className="flex flex-col divide-y divide-line">
      {state.nodes.map((node) => (
        <li key={node.name} className="flex items-center gap-3 py-2">
          <span className="min-w-0 flex-1">
            <span className="block truncate font-medium">{node.name}</span>
            <span className="text-xs text-muted">
              {node.version ? `version ${node.version}, ` : ""}leads {node.leads} of {node.replicas} shards
            </span>
          </span>
          {node.draining ? <Badge tone="text-warn">draining</Badge> : null}
          {node.read_only ? <Badge tone="text-bad">disk full</Badge> : null}
          <Badge tone={node.ready ? "text-good" : "text-bad"}>
            {node.ready ? "ready" : node.alive ? "not ready" : "not reached"}
          </Badge>
        </li>
      ))}
    </ul>
  );
}

function ShardMap({ state }: { state: ClusterState }) {
  return (
    <ul className="grid grid-cols-4 gap-2 sm:grid-cols-8">
      {state.shards.map((s) => {
        const isDown = s.stopped !== null || s.leader === null;
        const tone = isDown ? "border-bad text-bad" : s.lag > 0 ? "border-warn" : "border-line";
        const what = s.stopped
          ? `stopped: ${s.stopped}`
          : s.leader === null
            ? "no leader"
            : `led by ${s.leader}, lag ${s.lag}${s.coming.length > 0 ? `, moving to ${s.coming.map((c) => c.node).join(", ")}` : ""}`;
        return (
          <li key={s.shard} title={what} className={`rounded-lg border ${tone} bg-raised p-2`}>
            <span className="tabular block text-lg font-semibold">{s.shard}</span>
            <span className="block truncate text-xs text-muted">
              {isDown ? (s.stopped ? "stopped" : "no leader") : s.leader}
            </span>
            <span className="sr-only">{what}</span>
          </li>
        );
      })}
    </ul>
  );
}

function ShardTable({ state, tz }: { state: ClusterState; tz: string }) {
  const heads = ["Shard", "Leader", "Copies", "Term", "Commit", "Lag", "Events", "Last snapshot", "Watermark"];
  return (
    <section aria-label="Table of shards" className="overflow-x-auto" tabIndex={0}>
      <table className="tabular w-full text-xs">
        <thead className="text-left text-muted">
          <tr>
            {heads.map((head) => (
              <th key={head} className="py-1.5 pr-4 font-medium whitespace-nowrap">
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {state.shards.map((s) => (
            <tr key={s.shard} className="border-t border-line">
              <th className="py-1.5 pr-4 text-left font-medium">{s.shard}</th>
              <td className="pr-4">
                {s.stopped ? <span className="text-bad">{s.stopped}</span> : (s.leader ?? UNKNOWN)}
              </td>
              <td className="pr-4">
                {s.replicas.map((r) => (r.role === "learner" ? `${r.node} (learns)` : r.node)).join(", ") || UNKNOWN}
              </td>
              <td className="pr-4">{number(s.term)}</td>
              <td className="pr-4">{number(s.commit)}</td>
              <td className={`pr-4 ${s.lag ? "text-warn" : ""}`}>{number(s.lag)}</td>
              <td className="pr-4">{number(s.events)}</td>
              <td className="pr-4 whitespace-nowrap">
                {s.last_snapshot ? moment(Date.parse(s.last_snapshot), tz) : UNKNOWN}
              </td>
              <td className="whitespace-nowrap">{s.watermark ? moment(Date.parse(s.watermark), tz) : UNKNOWN}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
