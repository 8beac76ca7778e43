import type { Cluster as ClusterState } from "../../api/operations";
import { moment, number, UNKNOWN } from "../../lib/format";
import { failoverText } from "./failover";

export function ShardTable({ state, tz }: { state: ClusterState; tz: string }) {
  const heads = [
    "Shard",
    "Leader",
    "Copies",
    "Term",
    "Commit",
    "Lag",
    "Events",
    "Last failover",
    "Last snapshot",
    "Watermark",
  ];
  return (
    <section aria-label="Table of shards" className="overflow-x-auto" tabIndex={0}>
      <table className="tabular w-full text-xs" aria-label="Shards">
        <thead className="text-left text-muted">
          <tr>
            {heads.map((head) => (
              <th key={head} scope="col" className="py-1.5 pr-4 font-medium whitespace-nowrap">
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {state.shards.map((s) => (
            <tr key={s.shard} className="border-t border-line">
              <th scope="row" className="py-1.5 pr-4 text-left font-medium">
                {s.shard}
              </th>
              <td className="pr-4">
                {s.stopped ? <span className="text-bad">{s.stopped}</span> : (s.leader ?? UNKNOWN)}
              </td>
              <td className="pr-4 whitespace-nowrap">
                {s.replicas.map((r) => (r.role === "learner" ? `${r.node} (learns)` : r.node)).join(", ") || UNKNOWN}
              </td>
              <td className="pr-4">{number(s.term)}</td>
              <td className="pr-4">{number(s.commit)}</td>
              <td className={`pr-4 ${s.lag ? "text-warn" : ""}`}>{number(s.lag)}</td>
              <td className="pr-4">{number(s.events)}</td>
              <td className="pr-4 whitespace-nowrap" data-testid="failover">
                {s.last_failover ? failoverText(s.last_failover, tz) : UNKNOWN}
              </td>
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
