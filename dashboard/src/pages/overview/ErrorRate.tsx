import { staleSince, useAnswer } from "../../api/useAnswer";
import { openFrom } from "../../charts/axis";
import { Chart } from "../../charts/Chart";
import { SERIES_COLORS, type Series } from "../../charts/model";
import { percent, percentTick } from "../../lib/format";
import { Delta } from "../../panels/Delta";
import { Panel } from "../../panels/Panel";
import { FINE_DAYS_MAX, fineStepFor, rowsFor, STEP_MS, zoomOf } from "../../search/view";
import { Body } from "./Body";
import { columnAt, share, smoothed, sum, timesOf } from "./columns";
import { usePanel } from "./usePanel";

/** Errors above this share of events are worth a look. */
const THRESHOLD = 0.01;

/** More minutes than this are too many to see a course in: a line over these many steps leads through them. */
const NOISY_STEPS = 240;
/** Minutes that the line leads through, by how many there are at least: over a week, a quarter of an hour is as noisy as a minute is over a day. */
const COURSES = [
  { from: 4_000, width: 60, label: "Over one hour" },
  { from: 0, width: 15, label: "Over 15 minutes" },
];

/** More than a week of minutes is not drawn, and the panel says so. */
const STEP_SAID: Record<string, string> = {
  "1m": "per minute",
  "1h": `per hour (per minute up to ${FINE_DAYS_MAX} days)`,
  "1d": `per day (per minute up to ${FINE_DAYS_MAX} days)`,
};

export function ErrorRate() {
  const panel = usePanel();
  const step = fineStepFor(panel.view);
  const limit = rowsFor(panel.view, step);
  const stepMs = STEP_MS[step] ?? 60_000;
  const errors = useAnswer(panel.inView({ metric: "*", filters: ["event:error_occurred"], step, fill: "zero", limit }));
  const all = useAnswer(panel.inView({ metric: "*", step, fill: "zero", limit }));
  const times = timesOf(all.data);
  const course = COURSES.find(({ from }) => times.length >= from);
  const rates = (isBefore: boolean) => {
    const counts = columnAt(times, all.data, "count", isBefore);
    const wrong = columnAt(times, errors.data, "count", isBefore);
    return {
      total: sum(counts),
      over: share(sum(wrong), sum(counts)),
      steps: counts.map((n, i) => share(wrong[i], n)),
      course: smoothed(wrong, counts, course?.width ?? 1),
    };
  };
  const now = rates(false);
  const before = panel.comparedWith ? rates(true) : null;
  const isNoisy = times.length > NOISY_STEPS;
  const color = SERIES_COLORS[3] ?? "";
  const series: Series[] = isNoisy
    ? [
        { key: "rate", label: "Per minute", values: now.steps, color, kind: "line", isNoise: true },
        { key: "course", label: course?.label ?? "", values: now.course, color, kind: "line" },
      ]
    : [{ key: "rate", label: "Error rate", values: now.steps, color, kind: "line" }];
  if (before && panel.comparedWith) {
    series.push({
      key: "before",
      label: `The ${panel.comparedWith}`,
      values: isNoisy ? before.course : before.steps,
      color: "var(--muted)",
      kind: "line",
      isFaint: true,
    });
  }
  const isHigh = now.over !== null && now.over > THRESHOLD;
  return (
    <Panel
      title="Error rate"
      hint={`error_occurred as a share of all events, ${STEP_SAID[step]}`}
      receipt={all.data?.receipt}
      staleSinceMs={staleSince(errors, all)}
      withoutFilters={panel.withoutFilters}
      isBusy={all.isPlaceholderData}
      tz={panel.tz}
      figure={
        <p className="flex flex-wrap items-baseline gap-x-3">
          <span className={`tabular text-2xl font-semibold ${isHigh ? "text-bad" : ""}`} data-testid="error-rate">
            {percent(now.over, 2)}
          </span>
          {now.over === null ? null : <span className="text-muted">{isHigh ? "above 1 %" : "within 1 %"}</span>}
          <Delta now={now.over} before={before?.over} comparedWith={panel.comparedWith} isShare good="down" />
        </p>
      }
    >
      <Body
        panel={panel}
        results={[errors, all]}
        event="error_occurred"
        isEmpty={!now.total && Boolean(all.data?.receipt.complete)}
      >
        <Chart
          summary={`Error rate; ${percent(now.over, 2)} over the range`}
          times={times}
          series={series}
          tz={panel.tz}
          stepMs={stepMs}
          lines={[{ value: THRESHOLD, label: "1 %", color: "var(--bad)" }]}
          axes={{ left: percentTick }}
          openFromMs={openFrom(times, stepMs, all.data?.receipt.to, panel.isRelative)}
          isPartial={all.data?.receipt.complete === false}
          format={(value) => percent(value, 2)}
          onPick={(time) => panel.set(zoomOf(time, stepMs))}
        />
      </Body>
    </Panel>
  );
}
