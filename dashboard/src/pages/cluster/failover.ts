// Shards that went from one leader to another, in words.
import type { Cluster, Shard } from "../../api/operations";
import { clock, moment, number } from "../../lib/format";

type Failover = NonNullable<Shard["last_failover"]>;

/** The latest one of all shards. */
export function lastFailover(state: Cluster): { shard: number; failover: Failover } | null {
  let last: { shard: number; failover: Failover } | null = null;
  for (const { shard, last_failover: failover } of state.shards) {
    if (failover && (!last || Date.parse(failover.at) > Date.parse(last.failover.at))) last = { shard, failover };
  }
  return last;
}

export const failoverText = ({ at, from, to, gap_ms }: Failover, tz: string, nowMs = Date.now()): string => {
  const ms = Date.parse(at);
  const when = nowMs - ms < 12 * 3_600_000 ? clock(ms, tz) : moment(ms, tz);
  return `${when}, ${from} → ${to}, ${number(gap_ms)} ms`;
};
