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
import { moment, number, short, tick } from "../lib/format";
import type { ChartProps, Series } from "./model";

type Point = { time: number } & Record<string, number | null>;

export default function SvgChart(props: ChartProps) {
  const { times, series, tz, openFromMs, lines = [], isPartial, onPick } = props;
  const print = props.format ?? ((value) => number(value));
  const points: Point[] = times.map((time, i) => {
    const point: Point = { time };
    for (const s of series) point[s.key] = s.values[i] ?? null;
    return point;
  });
  const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
  const hasRight = series.some((s) => s.axis === "right") || lines.some((l) => l.axis === "right");
  const last = times.at(-1);
  const step = times.length > 1 ? (times[1] ?? 0) - (times[0] ?? 0) : 0;
  const pick = (point: unknown, s: Series) => {
    const time = (point as { payload?: Point }).payload?.time;
    if (time !== undefined) onPick?.(time, s);
  };
  return (
    <ResponsiveContainer width="100%" height="100%">
      <ComposedChart
        data={points}
        margin={{ top: 6, right: hasRight ? 0 : 6, bottom: 0, left: 0 }}
        accessibilityLayer={false}
      >
        <CartesianGrid vertical={false} stroke="var(--line)" />
        <XAxis
          dataKey="time"
          type="number"
          scale="time"
          domain={[times[0] ?? 0, (last ?? 0) + (series.some((s) => s.kind === "bar") ? step : 0)]}
          tickFormatter={(ms: number) => tick(ms, tz, span)}
          tick={{ fill: "var(--muted)", fontSize: 11 }}
          stroke="var(--line)"
          minTickGap={40}
        />
        <YAxis
          yAxisId="left"
          width={44}
          tickFormatter={short}
          tick={{ fill: "var(--muted)", fontSize: 11 }}
          axisLine={false}
          tickLine={false}
        />
        {hasRight ? (
          <YAxis
            yAxisId="right"
            orientation="right"
            width={44}
            tickFormatter={(v: number) => `${Math.round(v * 100)} %`}
            tick={{ fill: "var(--muted)", fontSize: 11 }}
            axisLine={false}
            tickLine={false}
          />
        ) : null}
        {openFromMs && last !== undefined && openFromMs <= last ? (
          <ReferenceArea
            yAxisId="left"
            x1={openFromMs}
            x2={last + step}
            fill="var(--raised)"
            fillOpacity={0.8}
            ifOverflow="hidden"
          />
        ) : null}
        <Tooltip
          isAnimationActive={false}
          cursor={{ stroke: "var(--muted)", strokeDasharray: "3 3", fill: "var(--raised)" }}
          content={({ active, label, payload }) =>
            active && payload?.length ? (
              <div className="rounded-lg border border-line bg-surface px-3 py-2 text-xs shadow-lg">
                <p className="mb-1 text-muted">
                  {moment(Number(label), tz)}
                  {openFromMs && Number(label) >= openFromMs ? " (not over yet)" : ""}
                </p>
                {series.map((s) => {
                  const value = payload.find((p) => p.dataKey === s.key)?.value;
                  return (
                    <p key={s.key} className="tabular flex items-center gap-2">
                      <span className="size-2 rounded-full" style={{ background: s.color }} />
                      <span className="flex-1">{s.label}</span>
                      <span className="font-medium">{print(typeof value === "number" ? value : null, s)}</span>
                    </p>
                  );
                })}
              </div>
            ) : null
          }
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
              radius={[3, 3, 0, 0]}
              isAnimationActive={false}
              {...(onPick ? { onClick: (p: unknown) => pick(p, s), cursor: "pointer" } : {})}
            />
          ) : null,
        )}
        {series.map((s) =>
          s.kind === "line" ? (
            series.length === 1 && !s.isFaint ? (
              <Area
                key={s.key}
                yAxisId={s.axis ?? "left"}
                dataKey={s.key}
                stroke={s.color}
                strokeWidth={2}
                fill={s.color}
                fillOpacity={0.12}
                {...(isPartial ? { strokeDasharray: "5 4" } : {})}
                dot={false}
                connectNulls={false}
                isAnimationActive={false}
              />
            ) : (
              <Line
                key={s.key}
                yAxisId={s.axis ?? "left"}
                dataKey={s.key}
                stroke={s.color}
                strokeWidth={s.isFaint ? 1.5 : 2}
                strokeOpacity={s.isFaint ? 0.6 : 1}
                {...(s.isFaint || isPartial ? { strokeDasharray: "5 4" } : {})}
                dot={false}
                connectNulls={false}
                isAnimationActive={false}
              />
            )
          ) : null,
        )}
        {lines.map((l) => (
          <ReferenceLine
            key={l.label}
            yAxisId={l.axis ?? "left"}
            y={l.value}
            stroke={l.color}
            strokeDasharray="6 4"
            ifOverflow="extendDomain"
            label={{ value: l.label, fill: l.color, fontSize: 11, position: "insideTopRight" }}
          />
        ))}
      </ComposedChart>
    </ResponsiveContainer>
  );
}
