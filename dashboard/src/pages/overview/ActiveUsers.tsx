import { staleSince, useAnswer } from "../../api/useAnswer";
import { openFrom } from "../../charts/axis";
import { Chart } from "../../charts/Chart";
import { SERIES_COLORS } from "../../charts/model";
import { number } from "../../lib/format";
import { Delta } from "../../panels/Delta";
import { Panel } from "../../panels/Panel";
import { Body } from "./Body";
import { columnAt, sum, timesOf } from "./columns";
import { usePanel } from "./usePanel";

export function ActiveUsers() {
  const panel = usePanel();
  const { from: _f, to: _t, ...now } = panel.inView({ metric: "*", agg: ["sessions"], range: "5m" });
  const { compare: _c, ...past } = now;
  const live = useAnswer(now);
  const hour = useAnswer({ ...past, range: "1h", step: "1m", fill: "zero" });
  const row = live.data?.data[0];
  const count = row?.values.sessions;
  const times = timesOf(hour.data);
  const sessions = columnAt(times, hour.data, "sessions");
  return (
    <Panel
      title="Active users now"
      hint="Sessions with an event in the last 5 minutes; below, per minute of the last hour"
      receipt={live.data?.receipt}
      estimated={["sessions"]}
      staleSinceMs={staleSince(live, hour)}
      withoutFilters={panel.withoutFilters}
      isBusy={live.isPlaceholderData}
      tz={panel.tz}
      figure={
        <p className="flex items-baseline gap-3">
          <span className="tabular text-5xl font-semibold tracking-tight" data-testid="active-users">
            {number(count)}
          </span>
          <Delta now={count} before={row?.compare?.values.sessions} comparedWith={panel.comparedWith} />
        </p>
      }
    >
      <Body
        panel={panel}
        results={[live, hour]}
        event="page_view"
        isEmpty={Boolean(panel.filters.length) && sum(sessions) === 0}
      >
        <Chart
          summary={`Active sessions per minute over the last hour; ${number(count)} in the last five minutes`}
          times={times}
          series={[{ key: "sessions", label: "Active", values: sessions, color: SERIES_COLORS[0] ?? "", kind: "line" }]}
          tz={panel.tz}
          isBare
          stepMs={60_000}
          openFromMs={openFrom(times, 60_000, hour.data?.receipt.to, true)}
          isPartial={hour.data?.receipt.complete === false}
        />
      </Body>
    </Panel>
  );
}
