import { staleSince, useAnswer } from "../../api/useAnswer";
import { openFrom } from "../../charts/axis";
import { Chart } from "../../charts/Chart";
import { SERIES_COLORS, type Series } from "../../charts/model";
import { number, percent } from "../../lib/format";
import { Delta } from "../../panels/Delta";
import { Panel } from "../../panels/Panel";
import { rangeMs, STEP_MS, zoomOf } from "../../search/view";
import { Body } from "./Body";
import { columnAt, share, sum, timesOf } from "./columns";
import { usePanel } from "./usePanel";

export function SignupFunnel() {
  const panel = usePanel();
  const step = rangeMs(panel.view) > 8 * 86_400_000 ? "1d" : "1h";
  const stepMs = STEP_MS[step] ?? 3_600_000;
  const ask = (event: string) => panel.inView({ metric: "*", filters: [`event:${event}`], step, fill: "zero" });
  const started = useAnswer(ask("signup_started"));
  const completed = useAnswer(ask("signup_completed"));
  const times = timesOf(started.data);
  const starts = columnAt(times, started.data, "count");
  const ends = columnAt(times, completed.data, "count");
  const [total, finished] = [sum(starts), sum(ends)];
  const before = share(
    sum(columnAt(times, completed.data, "count", true)),
    sum(columnAt(times, started.data, "count", true)),
  );
  const series: Series[] = [
    { key: "started", label: "Started", values: starts, color: SERIES_COLORS[0] ?? "", kind: "bar" },
    { key: "completed", label: "Completed", values: ends, color: SERIES_COLORS[2] ?? "", kind: "bar" },
    {
      key: "conversion",
      label: "Conversion",
      values: starts.map((s, i) => share(ends[i], s)),
      color: SERIES_COLORS[1] ?? "",
      kind: "line",
      axis: "right",
    },
  ];
  return (
    <Panel
      title="Sign-up funnel"
      hint={`Started and completed by ${step === "1h" ? "hour" : "day"}`}
      receipt={completed.data?.receipt}
      staleSinceMs={staleSince(started, completed)}
      withoutFilters={panel.withoutFilters}
      isBusy={started.isPlaceholderData}
      tz={panel.tz}
      figure={
        <p className="flex flex-wrap items-baseline gap-x-3">
          <span className="tabular text-2xl font-semibold" data-testid="conversion">
            {percent(share(finished, total))}
          </span>
          {total === null || (total === 0 && finished === 0) ? null : (
            <span className="text-muted" data-testid="funnel-counts">
              {number(finished)} of {number(total)} finish
            </span>
          )}
          <Delta now={share(finished, total)} before={before} comparedWith={panel.comparedWith} isShare good="up" />
        </p>
      }
    >
      <Body
        panel={panel}
        results={[started, completed]}
        event="signup_started"
        isEmpty={!total && !finished && Boolean(started.data?.receipt.complete)}
      >
        <Chart
          summary={`${number(total)} sign-ups started, ${number(finished)} completed`}
          times={times}
          series={series}
          tz={panel.tz}
          stepMs={stepMs}
          openFromMs={openFrom(times, stepMs, started.data?.receipt.to, panel.isRelative)}
          isPartial={started.data?.receipt.complete === false}
          format={(value, s) => (s.key === "conversion" ? percent(value) : number(value))}
          onPick={(time) => panel.set(zoomOf(time, stepMs))}
        />
      </Body>
    </Panel>
  );
}
