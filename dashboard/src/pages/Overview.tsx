import type { ReactNode } from "react";
import type { Answer } from "../api/answer";
import type { MetricQuery } from "../api/query";
import { filterFor } from "../api/query";
import { useAnswer } from "../api/useAnswer";
import { Chart } from "../charts/Chart";
import { SERIES_COLORS, type Series } from "../charts/model";
import { number, percent } from "../lib/format";
import { Panel } from "../panels/Panel";
import { Failed, NoEventsYet, NothingMatches, Skeleton } from "../panels/states";
import { rangeMs, STEP_MS, stepFor, timeOf } from "../search/view";
import { useView } from "../shell/useView";

/** Errors above this share of events are worth a look. */
const ERROR_THRESHOLD = 0.01;
const FEATURES_MAX = 10;

export function Overview() {
  return (
    <div className="grid grid-cols-1 gap-4 lg:grid-cols-2">
      <h1 className="sr-only">Overview</h1>
      <ActiveUsers />
      <SignupFunnel />
      <TopFeatures />
      <ErrorRate />
    </div>
  );
}

/** The page's view as part of a query. */
function useQueryOfView(own: MetricQuery): MetricQuery {
  const { view, tz } = useView();
  const filters = [...(own.filters ?? []), ...(view.filter ?? [])];
  return {
    ...timeOf(view),
    tz,
    ...(view.compare ? { compare: view.compare } : {}),
    ...own,
    ...(filters.length ? { filters } : {}),
  };
}

type Result = ReturnType<typeof useAnswer>;

function Body({
  results,
  event,
  isEmpty,
  children,
}: {
  results: Result[];
  event: string;
  isEmpty: boolean;
  children: ReactNode;
}) {
  const { view, set } = useView();
  const failed = results.find((r) => r.isError && !r.data);
  if (failed) return <Failed error={failed.error} onRetry={() => results.forEach((r) => void r.refetch())} />;
  if (results.some((r) => !r.data)) return <Skeleton />;
  if (isEmpty) {
    return view.filter?.length ? (
      <NothingMatches onClear={() => set({ filter: undefined })} />
    ) : (
      <NoEventsYet event={event} />
    );
  }
  return children;
}

const staleSince = (...results: Result[]) => {
  const failed = results.find((r) => r.isError && r.data);
  return failed ? failed.dataUpdatedAt : null;
};

const times = (answer: Answer | undefined) => (answer?.data ?? []).map((row) => Date.parse(row.time ?? ""));
const column = (answer: Answer | undefined, name: string) =>
  (answer?.data ?? []).map((row) => row.values[name] ?? null);
const sum = (values: (number | null)[]) => values.reduce<number>((total, v) => total + (v ?? 0), 0);

function openFrom(answer: Answer | undefined, step: string): number | null {
  const end = answer ? Date.parse(answer.receipt.to) : Number.NaN;
  return Number.isNaN(end) ? null : end - (STEP_MS[step] ?? 60_000);
}

function ActiveUsers() {
  const { tz, view } = useView();
  const { range: _, ...rest } = useQueryOfView({ metric: "*", agg: ["sessions"] }) as MetricQuery & { range?: string };
  const { from: _f, to: _t, compare: _c, ...now } = rest;
  const live = useAnswer({ ...now, range: "5m" });
  const hour = useAnswer({ ...now, range: "1h", step: "1m", fill: "zero" });
  const count = live.data?.data[0]?.values.sessions;
  const series: Series[] = [
    {
      key: "sessions",
      label: "Active",
      values: column(hour.data, "sessions"),
      color: SERIES_COLORS[0] ?? "",
      kind: "line",
    },
  ];
  return (
    <Panel
      title="Active users now"
      hint="Sessions with an event in the last 5 minutes; below, per minute of the last hour"
      receipt={live.data?.receipt}
      estimated={["sessions"]}
      staleSinceMs={staleSince(live, hour)}
      tz={tz}
      figure={<p className="tabular text-5xl font-semibold tracking-tight">{live.data ? number(count) : "–"}</p>}
    >
      <Body
        results={[live, hour]}
        event="page_view"
        isEmpty={Boolean(view.filter?.length) && sum(column(hour.data, "sessions")) === 0}
      >
        <Chart
          summary={`Active sessions per minute over the last hour; ${number(count)} in the last five minutes`}
          times={times(hour.data)}
          series={series}
          tz={tz}
          height={150}
          openFromMs={openFrom(hour.data, "1m")}
          isPartial={hour.data?.receipt.complete === false}
        />
      </Body>
    </Panel>
  );
}

function SignupFunnel() {
  const { tz, view } = useView();
  const step = rangeMs(view) > 4 * 86_400_000 ? "1d" : "1h";
  const started = useAnswer(useQueryOfView({ metric: "*", filters: ["event:signup_started"], step, fill: "zero" }));
  const completed = useAnswer(useQueryOfView({ metric: "*", filters: ["event:signup_completed"], step, fill: "zero" }));
  const starts = column(started.data, "count");
  const ends = column(completed.data, "count");
  const rate = starts.map((s, i) => (s ? (ends[i] ?? 0) / s : null));
  const series: Series[] = [
    { key: "started", label: "Started", values: starts, color: SERIES_COLORS[0] ?? "", kind: "bar" },
    { key: "completed", label: "Completed", values: ends, color: SERIES_COLORS[2] ?? "", kind: "bar" },
    {
      key: "conversion",
      label: "Conversion",
      values: rate,
      color: SERIES_COLORS[1] ?? "",
      kind: "line",
      axis: "right",
    },
  ];
  const total = sum(starts);
  return (
    <Panel
      title="Sign-up funnel"
      hint={`Started and completed by ${step === "1h" ? "hour" : "day"}`}
      receipt={completed.data?.receipt}
      staleSinceMs={staleSince(started, completed)}
      tz={tz}
      figure={
        <p className="tabular text-2xl font-semibold">
          {total ? percent(sum(ends) / total) : "–"}{" "}
          <span className="text-sm font-normal text-muted">of {number(total)} finish</span>
        </p>
      }
    >
      <Body results={[started, completed]} event="signup_started" isEmpty={total + sum(ends) === 0}>
        <Chart
          summary={`${number(total)} sign-ups started, ${number(sum(ends))} completed`}
          times={times(started.data)}
          series={series}
          tz={tz}
          openFromMs={openFrom(started.data, step)}
          isPartial={started.data?.receipt.complete === false}
          format={(value, s) => (s.key === "conversion" ? percent(value) : number(value))}
        />
      </Body>
    </Panel>
  );
}

function TopFeatures() {
  const { tz, addFilter } = useView();
  const result = useAnswer(
    useQueryOfView({
      metric: "feature_usage",
      agg: ["users", "count"],
      groupBy: ["feature"],
      order: "-value",
      limit: FEATURES_MAX,
      filters: ["!feature:"],
    }),
  );
  const rows = result.data?.data ?? [];
  const max = Math.max(1, ...rows.map((r) => r.values.users ?? 0));
  return (
    <Panel
      title="Top features"
      hint="By unique users"
      receipt={result.data?.receipt}
      estimated={["users"]}
      staleSinceMs={staleSince(result)}
      tz={tz}
    >
      <Body results={[result]} event="feature_used" isEmpty={rows.length === 0}>
        <ol className="flex flex-col gap-1.5">
          {rows.map((row) => {
            const name = row.group?.feature ?? "";
            const users = row.values.users ?? 0;
            return (
              <li key={name}>
                <button
                  type="button"
                  onClick={() => addFilter(filterFor("feature", name))}
                  className="relative block w-full overflow-hidden rounded-md px-3 py-1.5 text-left hover:bg-raised"
                >
                  <span
                    aria-hidden
                    className="absolute inset-y-0 left-0 rounded-md bg-accent/20"
                    style={{ width: `${(100 * users) / max}%` }}
                  />
                  <span className="relative flex justify-between gap-4">
                    <span className="truncate">{name}</span>
                    <span className="tabular font-medium">{number(users)}</span>
                  </span>
                </button>
              </li>
            );
          })}
        </ol>
      </Body>
    </Panel>
  );
}

function ErrorRate() {
  const { tz, view } = useView();
  const step = stepFor(view);
  const errors = useAnswer(useQueryOfView({ metric: "*", filters: ["event:error_occurred"], step, fill: "zero" }));
  const all = useAnswer(useQueryOfView({ metric: "*", step, fill: "zero" }));
  const counts = column(all.data, "count");
  const wrong = column(errors.data, "count");
  const rate = counts.map((n, i) => (n ? (wrong[i] ?? 0) / n : null));
  const total = sum(counts);
  const share = total ? sum(wrong) / total : null;
  const series: Series[] = [
    { key: "rate", label: "Error rate", values: rate, color: SERIES_COLORS[3] ?? "", kind: "line" },
  ];
  const isHigh = share !== null && share > ERROR_THRESHOLD;
  return (
    <Panel
      title="Error rate"
      hint={`error_occurred as a share of all events, per ${step}`}
      receipt={all.data?.receipt}
      staleSinceMs={staleSince(errors, all)}
      tz={tz}
      figure={
        <p className={`tabular text-2xl font-semibold ${isHigh ? "text-bad" : ""}`}>
          {percent(share, 2)}{" "}
          <span className="text-sm font-normal text-muted">{isHigh ? "above 1 %" : "within 1 %"}</span>
        </p>
      }
    >
      <Body results={[errors, all]} event="error_occurred" isEmpty={total === 0}>
        <Chart
          summary={`Error rate; ${percent(share, 2)} over the range`}
          times={times(all.data)}
          series={series}
          tz={tz}
          lines={[{ value: ERROR_THRESHOLD, label: "1 %", color: "var(--bad)" }]}
          openFromMs={openFrom(all.data, step)}
          isPartial={all.data?.receipt.complete === false}
          format={(value) => percent(value, 2)}
        />
      </Body>
    </Panel>
  );
}
