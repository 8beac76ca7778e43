import { useQuery } from "@tanstack/react-query";
import { catalogue } from "../../api/client";
import { filterFor } from "../../api/query";
import { staleSince, useAnswer } from "../../api/useAnswer";
import { number } from "../../lib/format";
import { Delta } from "../../panels/Delta";
import { Panel } from "../../panels/Panel";
import { Failed, NoSuchMetric, Skeleton } from "../../panels/states";
import { Body } from "./Body";
import { featureMetric } from "./features";
import { usePanel } from "./usePanel";

const FEATURES_MAX = 10;
const DEFINITION = { name: "feature_usage", event: ["feature_used"], dimensions: ["feature"] };
/** A definition that was just made is seen within this, in milliseconds. */
const CATALOGUE_POLL_MS = 5_000;

export function TopFeatures() {
  const panel = usePanel();
  const known = useQuery({
    queryKey: ["catalogue"],
    queryFn: ({ signal }) => catalogue(signal),
    refetchInterval: ({ state }) => (featureMetric(state.data?.metrics ?? []) ? 30_000 : CATALOGUE_POLL_MS),
  });
  const by = featureMetric(known.data?.metrics ?? []);
  const dimension = by?.dimension ?? "feature";
  const result = useAnswer(
    panel.inView({
      metric: by?.metric ?? "",
      agg: ["users", "count"],
      groupBy: [dimension],
      order: "-value",
      limit: FEATURES_MAX,
      filters: [`!${filterFor(dimension, null)}`],
    }),
    { enabled: by !== null },
  );
  const rows = by ? (result.data?.data ?? []) : [];
  const max = Math.max(1, ...rows.map((r) => r.values.users ?? 0));
  const list = (
    <ol
      aria-label="Features by unique users, the most used first"
      className="flex h-full flex-col gap-px overflow-y-auto"
    >
      {rows.map((row) => {
        const name = row.group?.[dimension] ?? "";
        const users = row.values.users ?? null;
        return (
          <li key={name} className="min-h-5.5 flex-1">
            <button
              type="button"
              onClick={() => panel.addFilter(filterFor(dimension, name))}
              title={`Show only ${name}`}
              className="relative flex h-full max-h-10 w-full items-center overflow-hidden rounded-md px-3 text-left hover:bg-raised"
            >
              <span
                aria-hidden
                className="absolute inset-y-0 left-0 rounded-md bg-accent/20"
                style={{ width: `${(100 * (users ?? 0)) / max}%` }}
              />
              <span className="relative min-w-0 flex-1 truncate">{name}</span>
              <span className="relative flex shrink-0 items-baseline gap-3 pl-4">
                {panel.comparedWith ? (
                  <Delta now={users} before={row.compare?.values.users} comparedWith={panel.comparedWith} isTerse />
                ) : null}
                <span className="tabular font-medium">{number(users)}</span>
              </span>
            </button>
          </li>
        );
      })}
    </ol>
  );
  return (
    <Panel
      title="Top features"
      hint="By unique users"
      receipt={result.data?.receipt}
      estimated={["users"]}
      staleSinceMs={staleSince(result)}
      withoutFilters={panel.withoutFilters}
      isBusy={result.isPlaceholderData}
      tz={panel.tz}
    >
      {known.isError && !known.data ? (
        <Failed error={known.error} onRetry={() => void known.refetch()} />
      ) : !known.data ? (
        <Skeleton height="h-full" />
      ) : by === null ? (
        <NoSuchMetric what="No metric counts features" definition={DEFINITION} />
      ) : (
        <Body panel={panel} results={[result]} event="feature_used" isEmpty={rows.length === 0}>
          {list}
        </Body>
      )}
    </Panel>
  );
}
