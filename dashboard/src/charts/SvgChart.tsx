import {
  Area,
  Bar,
  CartesianGrid,
  ComposedChart,
  Line,
  ReferenceArea,
  ReferenceLine,
  ResponsiveContainer,
  Tooltip,
  XAxis,
  YAxis,
} from "recharts";
import { moment, number, percent, short, tick } from "../lib/format";
import { stepOf, ticksOf } from "./axis";
import type { ChartProps, Series } from "./model";

/** A step is drawn over its middle, so that bars and the shade of the open step lie within the axes. */
type Point = { middle: number; start: number } & Record<string, number | null>;

const TICK = { fill: "var(--muted)", fontSize: 11 };
const openKey = (s: Series) => `${s.key} open`;

export default function SvgChart(props: ChartProps) {
  const { times, series, tz, lines = [], isPartial, isBare, onPick } = props;
  const step = stepOf(times, props.stepMs);
  const first = times[0] ?? 0;
  const end = (times.at(-1) ?? 0) + step;
  const openFrom =
    props.openFromMs !== null && props.openFromMs !== undefined && props.openFromMs < end ? props.openFromMs : null;
  // The line to the open step is a line of its own, which is dashed.
  const open = openFrom === null ? -1 : times.findIndex((ms) => ms >= openFrom);
  const points = times.map((start, i) => {
    const point: Point = { start, middle: start + step / 2 };
    for (const s of series) {
      const value = s.values[i] ?? null;
      const isSplit = s.kind === "line" && open > 0;
      point[s.key] = isSplit && i >= open ? null : value;
      if (isSplit) point[openKey(s)] = i >= open - 1 ? value : null;
    }
    return point;
  });
  const hasRight = series.some((s) => s.axis === "right") || lines.some((l) => l.axis === "right");
  const startOf = (point: unknown) => (point as { payload?: Point }).payload?.start;
  const pickable = (s: Series) => {
    const onClick = (point: unknown) => {
      const start = startOf(point);
      if (start !== undefined) onPick?.(start, s);
    };
    return onPick ? { onClick, cursor: "pointer" } : {};
  };
  const left = props.axes?.left ?? short;
  const right = props.axes?.right ?? ((v: number) => percent(v, 0));
  return (
    <ResponsiveContainer width="100%" height="100%">
      <ComposedChart
        data={points}
        margin={
          isBare ? { top: 4, right: 0, bottom: 0, left: 0 } : { top: 8, right: hasRight ? 0 : 8, bottom: 0, left: 0 }
        }
        barGap={1}
        barCategoryGap="18%"
        accessibilityLayer={false}
        {...(onPick ? { className: "cursor-pointer" } : {})}
      >
        {isBare ? null : <CartesianGrid yAxisId="left" vertical={false} stroke="var(--line)" />}
        <XAxis
          dataKey="middle"
          type="number"
          scale="time"
          domain={[first, end]}
          allowDataOverflow
          ticks={ticksOf(times, tz)}
          tickFormatter={(ms: number) => tick(ms, tz, end - first)}
          tick={TICK}
          tickLine={false}
          stroke="var(--line)"
          interval="preserveStartEnd"
          minTickGap={24}
          hide={isBare ?? false}
        />
        <YAxis
          yAxisId="left"
          width={46}
          domain={[(low: number) => Math.min(0, low), "auto"]}
          tickFormatter={left}
          tick={TICK}
          axisLine={false}
          tickLine={false}
          tickCount={5}
          hide={isBare ?? false}
        />
        {hasRight ? (
          <YAxis
            yAxisId="right"
            orientation="right"
            width={46}
            domain={[0, 1]}
            tickFormatter={right}
            tick={TICK}
            axisLine={false}
            tickLine={false}
            tickCount={5}
          />
        ) : null}
        {openFrom === null ? null : (
          <ReferenceArea
            yAxisId="left"
            x1={Math.max(first, openFrom)}
            x2={end}
            fill="var(--raised)"
            fillOpacity={1}
            ifOverflow="hidden"
            zIndex={-50}
          />
        )}
        <Tooltip
          isAnimationActive={false}
          cursor={{ stroke: "var(--muted)", strokeDasharray: "3 3", fill: "var(--raised)", fillOpacity: 0.6 }}
          content={({ active, payload }) => {
            const start = payload?.length ? startOf(payload[0]) : undefined;
            const at = start === undefined ? -1 : times.indexOf(start);
            return active && start !== undefined ? (
              <div className="rounded-lg border border-line bg-surface px-3 py-2 text-xs shadow-lg">
                <p className="mb-1 text-muted">
                  {moment(start, tz)}
                  {openFrom !== null && start >= openFrom ? ", not over yet" : ""}
                </p>
                {series.map((s) => (
                  <p key={s.key} className="tabular flex items-center gap-2">
                    <span
                      className="size-2 rounded-full"
                      style={{ background: s.color, opacity: s.isFaint ? 0.5 : 1 }}
                    />
                    <span className="flex-1">{s.label}</span>
                    <span className="font-medium">{(props.format ?? number)(s.values[at] ?? null, s)}</span>
                  </p>
                ))}
              </div>
            ) : null;
          }}
        />
        {series.map((s) =>
          s.kind === "bar" ? (
            <Bar
              key={s.key}
              yAxisId={s.axis ?? "left"}
              dataKey={s.key}
              fill={s.color}
              fillOpacity={s.isFaint || isPartial ? 0.35 : 0.9}
              {...(isPartial ? { stroke: s.color, strokeDasharray: "4 3" } : {})}
              radius={[2, 2, 0, 0]}
              maxBarSize={36}
              isAnimationActive={false}
              {...pickable(s)}
            />
          ) : null,
        )}
        {series.flatMap((s) => {
          if (s.kind !== "line") return [];
          const isAlone = series.length === 1;
          const isDashed = s.isFaint || isPartial;
          const drawn = (dataKey: string, isOpen: boolean) => {
            const stroke = {
              yAxisId: s.axis ?? "left",
              dataKey,
              stroke: s.color,
              strokeWidth: s.isNoise ? 1 : s.isFaint ? 1.5 : 2,
              strokeOpacity: s.isNoise ? 0.45 : s.isFaint ? 0.7 : 1,
              dot: isOpen ? false : onlyPoint(s.values, s.color),
              activeDot: {
                r: 4,
                ...(onPick ? { onClick: (_: unknown, point: unknown) => pickable(s).onClick?.(point) } : {}),
              },
              connectNulls: false,
              isAnimationActive: false,
              ...(isDashed || isOpen ? { strokeDasharray: isOpen && !isDashed ? "2 3" : "5 4" } : {}),
            } as const;
            return isAlone ? (
              <Area key={dataKey} {...stroke} fill={s.color} fillOpacity={isOpen ? 0.06 : 0.14} />
            ) : (
              <Line key={dataKey} {...stroke} />
            );
          };
          return open > 0 ? [drawn(s.key, false), drawn(openKey(s), true)] : [drawn(s.key, false)];
        })}
        {lines.map((l) => (
          <ReferenceLine
            key={l.label}
            yAxisId={l.axis ?? "left"}
            y={l.value}
            stroke={l.color}
            strokeDasharray="6 4"
            ifOverflow="extendDomain"
            label={{ value: l.label, fill: l.color, fontSize: 11, position: "insideTopLeft" }}
          />
        ))}
      </ComposedChart>
    </ResponsiveContainer>
  );
}

/** Points without a neighbour make no line: they are drawn as dots. */
function onlyPoint(values: (number | null)[], color: string) {
  const isKnown = (i: number) => values[i] !== null && values[i] !== undefined;
  if (!values.some((_, i) => isKnown(i) && !isKnown(i - 1) && !isKnown(i + 1))) return false;
  return ({ cx, cy, index }: { cx?: number; cy?: number; index?: number }) =>
    index !== undefined && cy !== undefined && isKnown(index) && !isKnown(index - 1) && !isKnown(index + 1) ? (
      <circle key={index} cx={cx} cy={cy} r={2.5} fill={color} />
    ) : (
      <g key={index} />
    );
}
