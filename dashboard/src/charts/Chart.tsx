// One door to all drawing: recharts for panels, uPlot where there are many points; both load when first needed. Beside each stands its table.
import { ChartSpline, Table2 } from "lucide-react";
import { lazy, Suspense, useId, useState } from "react";
import { moment, number } from "../lib/format";
import { Skeleton } from "../panels/states";
import { Legend } from "./Legend";
import { type ChartProps, SVG_POINTS_MAX } from "./model";

const SvgChart = lazy(() => import("./SvgChart"));
const CanvasChart = lazy(() => import("./CanvasChart"));

/** Rows of the table beside a chart at most; the CSV has them all. */
const TABLE_ROWS_MAX = 500;

/** Series that the description of a chart tells of. */
const SERIES_SAID_MAX = 8;

export function Chart(props: ChartProps) {
  const points = props.times.length * props.series.length;
  const Drawn = points > SVG_POINTS_MAX ? CanvasChart : SvgChart;
  const summary = useId();
  const details = useId();
  const [isTable, setTable] = useState(false);
  return (
    <figure className="m-0 flex h-full min-h-0 flex-col" aria-labelledby={summary} aria-describedby={details}>
      <figcaption id={summary} className="sr-only">
        {props.summary}
      </figcaption>
      <p id={details} className="sr-only">
        {inWords(props)}
      </p>
      {isTable ? (
        <DataTable {...props} />
      ) : (
        <div aria-hidden {...room(props.height)}>
          <Suspense fallback={<Skeleton height="h-full" />}>
            <Drawn {...props} />
          </Suspense>
        </div>
      )}
      <div className="mt-1.5 flex items-end justify-between gap-4">
        {props.isBare ? <span /> : <Legend series={props.series} pickSeries={props.pickSeries} />}
        <button
          type="button"
          aria-pressed={isTable}
          onClick={() => setTable(!isTable)}
          className="ml-auto inline-flex shrink-0 items-center gap-1 rounded px-1 text-xs text-muted hover:text-ink"
        >
          {isTable ? <ChartSpline size={13} aria-hidden /> : <Table2 size={13} aria-hidden />}
          {isTable ? "Chart" : "Table"}
          <span className="sr-only">: {props.summary}</span>
        </button>
      </div>
    </figure>
  );
}

/** The picture in a few sentences: from when to when, and of each series the extremes and the last full step. */
function inWords(props: ChartProps): string {
  const { times, series, tz, lines = [], openFromMs, isPartial } = props;
  const [first, last] = [times[0], times.at(-1)];
  if (first === undefined || last === undefined) return "There is nothing to show.";
  const print = props.format ?? ((value) => number(value));
  const isOpen = openFromMs !== null && openFromMs !== undefined && openFromMs <= last;
  const parts = [`${number(times.length)} steps from ${moment(first, tz)} to ${moment(last, tz)}`];
  if (isOpen) parts[0] += ", the last of which is not over yet";
  if (isPartial) parts.push("Shards are missing from it");
  for (const s of series.slice(0, SERIES_SAID_MAX)) {
    let [low, high] = [-1, -1];
    s.values.forEach((value, i) => {
      if (value === null) return;
      if (low < 0 || value < (s.values[low] ?? 0)) low = i;
      if (high < 0 || value > (s.values[high] ?? 0)) high = i;
    });
    const at = (i: number) => `${print(s.values[i] ?? null, s)} at ${moment(times[i] ?? first, tz)}`;
    const recent = s.values.findLastIndex((value, i) => value !== null && !(isOpen && (times[i] ?? 0) >= openFromMs));
    const lately = recent < 0 ? "" : `, at last ${print(s.values[recent] ?? null, s)}`;
    parts.push(`${s.label}: ${high < 0 ? "nothing known" : `lowest ${at(low)}, highest ${at(high)}${lately}`}`);
  }
  if (series.length > SERIES_SAID_MAX) parts.push(`${series.length - SERIES_SAID_MAX} more series are in the table`);
  for (const line of lines) parts.push(`A line marks ${line.label}`);
  return `${parts.join(". ")}.`;
}

/** A height of its own, or what the panel leaves. */
const room = (height: number | undefined) =>
  height
    ? { className: "shrink-0 overflow-y-auto", style: { height } }
    : { className: "min-h-32 flex-1 overflow-y-auto" };

function DataTable({ times, series, tz, summary, format, height }: ChartProps) {
  const print = format ?? ((value) => number(value));
  const first = Math.max(0, times.length - TABLE_ROWS_MAX);
  return (
    <section aria-label={summary} {...room(height)} tabIndex={0}>
      <table className="tabular w-full text-xs" aria-label={summary}>
        {first > 0 ? (
          <caption className="py-1 text-left text-muted">
            The last {TABLE_ROWS_MAX} of {number(times.length)} steps
          </caption>
        ) : null}
        <thead className="sticky top-0 bg-surface text-left text-muted">
          <tr>
            <th scope="col" className="py-1 pr-4 font-medium">
              Time
            </th>
            {series.map((s) => (
              <th key={s.key} scope="col" className="py-1 pr-4 text-right font-medium">
                {s.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.slice(first).map((time, i) => (
            <tr key={time} className="border-t border-line">
              <th scope="row" className="py-1 pr-4 text-left font-normal whitespace-nowrap">
                {moment(time, tz)}
              </th>
              {series.map((s) => (
                <td key={s.key} className="py-1 pr-4 text-right">
                  {print(s.values[first + i] ?? null, s)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
