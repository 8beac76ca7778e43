// One door to all drawing: recharts for panels, uPlot where there are many points; both load when first needed. Beside each stands its table.
import { lazy, Suspense, useId, useState } from "react";
import { moment, number } from "../lib/format";
import { Skeleton } from "../panels/states";
import { type ChartProps, SVG_POINTS_MAX } from "./model";

const SvgChart = lazy(() => import("./SvgChart"));
const CanvasChart = lazy(() => import("./CanvasChart"));

/** Rows of the table beside a chart at most; the CSV has them all. */
const TABLE_ROWS_MAX = 500;

export function Chart(props: ChartProps) {
  const points = props.times.length * props.series.length;
  const Drawn = points > SVG_POINTS_MAX ? CanvasChart : SvgChart;
  const summary = useId();
  const [isTable, setTable] = useState(false);
  return (
    <figure className="m-0" aria-labelledby={summary}>
      <figcaption id={summary} className="sr-only">
        {props.summary}
      </figcaption>
      {isTable ? (
        <DataTable {...props} />
      ) : (
        <div aria-hidden style={{ height: props.height ?? 224 }}>
          <Suspense fallback={<Skeleton height="h-full" />}>
            <Drawn {...props} />
          </Suspense>
        </div>
      )}
      <button
        type="button"
        aria-pressed={isTable}
        onClick={() => setTable(!isTable)}
        className="mt-1 rounded text-xs text-muted underline-offset-2 hover:text-ink hover:underline"
      >
        {isTable ? "Show the chart" : "Show as a table"}
      </button>
    </figure>
  );
}

function DataTable({ times, series, tz, summary, format, height }: ChartProps) {
  const print = format ?? ((value) => number(value));
  const first = Math.max(0, times.length - TABLE_ROWS_MAX);
  return (
    <section aria-label={summary} className="overflow-auto" style={{ maxHeight: height ?? 224 }} tabIndex={0}>
      <table className="tabular w-full text-xs">
        <thead className="sticky top-0 bg-surface text-left text-muted">
          <tr>
            <th className="py-1 pr-4 font-medium">Time</th>
            {series.map((s) => (
              <th key={s.key} className="py-1 pr-4 text-right font-medium">
                {s.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.slice(first).map((time, i) => (
            <tr key={time} className="border-t border-line">
              <th className="py-1 pr-4 text-left font-normal whitespace-nowrap">{moment(time, tz)}</th>
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
