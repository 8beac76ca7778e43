import { ArrowRight } from "lucide-react";
import type { ReactNode } from "react";
import type { Cluster, Shard } from "../../api/operations";
import { SERIES_COLORS } from "../../charts/model";
import { number } from "../../lib/format";

/** A shard that changed hands within this stands out, in milliseconds. */
const FRESH_MS = 15_000;

/** Nodes by name, so that they keep their places and colours while they come and go. */
const sorted = (state: Cluster) =>
  [...state.nodes].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));

const colorOf = (state: Cluster, node: string) =>
  SERIES_COLORS[sorted(state).findIndex((n) => n.name === node) % SERIES_COLORS.length] ?? "var(--muted)";

function Badge({ tone, children }: { tone: string; children: ReactNode }) {
  return <span className={`rounded-full border border-current px-2 py-0.5 text-xs ${tone}`}>{children}</span>;
}

function Dot({ color }: { color: string }) {
  return <span aria-hidden className="size-2.5 shrink-0 rounded-sm" style={{ background: color }} />;
}

export function Nodes({ state }: { state: Cluster }) {
  return (
    <ul aria-label="Nodes" className="flex flex-col divide-y divide-line">
      {sorted(state).map((node) => (
        <li key={node.id} className="flex items-center gap-3 py-2">
          <Dot color={colorOf(state, node.name)} />
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

export function ShardMap({ state }: { state: Cluster }) {
  const nowMs = Date.now();
  return (
    <ul aria-label="Shards and their leaders" className="grid grid-cols-4 gap-2 sm:grid-cols-8">
      {state.shards.map((s) => (
        <Tile key={s.shard} shard={s} color={s.leader ? colorOf(state, s.leader) : null} nowMs={nowMs} />
      ))}
    </ul>
  );
}

function Tile({ shard: s, color, nowMs }: { shard: Shard; color: string | null; nowMs: number }) {
  const isDown = s.stopped !== null || s.leader === null;
  const moved = s.last_failover && nowMs - Date.parse(s.last_failover.at) < FRESH_MS ? s.last_failover : null;
  const tone = isDown ? "border-bad text-bad" : s.lag ? "border-warn" : moved ? "border-accent" : "border-line";
  const what = s.stopped
    ? `stopped: ${s.stopped}`
    : s.leader === null
      ? "no leader"
      : [
          `led by ${s.leader}`,
          `lag ${number(s.lag)}`,
          ...(s.coming.length ? [`moving to ${s.coming.map((c) => c.node).join(", ")}`] : []),
          ...(moved ? [`taken over from ${moved.from} just now`] : []),
        ].join(", ");
  return (
    <li title={what} className={`rounded-lg border ${tone} bg-raised p-2 transition-colors`}>
      <span className="flex items-center justify-between gap-2">
        <span className="tabular text-lg font-semibold">{s.shard}</span>
        {color && !isDown ? <Dot color={color} /> : null}
      </span>
      <span aria-hidden className="flex items-center gap-1 text-xs text-muted">
        {moved && !isDown ? (
          <>
            <span className="truncate">{moved.from}</span>
            <ArrowRight size={11} className="shrink-0" />
          </>
        ) : null}
        <span className="truncate">{isDown ? (s.stopped ? "stopped" : "no leader") : s.leader}</span>
      </span>
      <span aria-hidden className="block truncate text-xs text-muted">
        {s.coming.length ? `to ${s.coming.map((c) => c.node).join(", ")}` : `lag ${number(s.lag)}`}
      </span>
      <span className="sr-only">{what}</span>
    </li>
  );
}
