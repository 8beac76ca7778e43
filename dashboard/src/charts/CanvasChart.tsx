import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { moment, number, percent, short, tick } from "../lib/format";
import { useTheme } from "../shell/theme";
import { stepOf } from "./axis";
import type { ChartProps } from "./model";

const role = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `var(--x)` as the canvas needs it. */
const resolve = (color: string) => (color.startsWith("var(") ? role(color.slice(4, -1)) : color);

/** Room for the words beside the pointer, pixels: beyond it they stand on its other side. */
const HOVER_WIDTH = 190;

interface Hover {
  at: number;
  left: number;
  width: number;
}

/** Many points: drawn on a canvas that is kept while only its data change. */
export default function CanvasChart(props: ChartProps) {
  const { times, series, tz, isPartial } = props;
  const theme = useTheme();
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [hover, setHover] = useState<Hover | null>(null);
  const looks = JSON.stringify([
    series.map((s) => [s.key, s.color, s.kind, s.axis, s.isFaint, s.isNoise]),
    tz,
    isPartial,
    theme,
  ]);

  const data = useMemo((): uPlot.AlignedData => {
    const half = stepOf(times, props.stepMs) / 2;
    return [times.map((t) => (t + half) / 1_000), ...series.map((s) => s.values)];
  }, [times, series, props.stepMs]);
  const shown = useRef(data);
  shown.current = data;

  // biome-ignore lint/correctness/useExhaustiveDependencies: made anew only when it looks different
  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const made = new uPlot(optionsOf(latest, element, setHover), shown.current, element);
    plot.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: element.clientHeight }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current = null;
      made.destroy();
    };
  }, [looks]);
  useEffect(() => plot.current?.setData(data), [data]);

  const start = hover ? times[hover.at] : undefined;
  const side = hover && hover.left > hover.width - HOVER_WIDTH ? { right: hover.width - hover.left + 12 } : null;
  return (
    <div ref={host} className={`relative h-full w-full ${props.onPick ? "cursor-pointer" : ""}`} data-testid="canvas">
      {hover && start !== undefined ? (
        <div
          className="pointer-events-none absolute top-2 z-10 rounded-lg border border-line bg-surface px-3 py-2 text-xs shadow-lg"
          style={side ?? { left: hover.left + 12 }}
        >
          <p className="mb-1 text-muted">
            {moment(start, tz)}
            {props.openFromMs && start >= props.openFromMs ? ", not over yet" : ""}
          </p>
          {series.map((s) => (
            <p key={s.key} className="tabular flex items-center gap-2">
              <span
                className="size-2 rounded-full"
                style={{ background: s.color, opacity: s.isFaint || s.isNoise ? 0.5 : 1 }}
              />
              <span className="max-w-40 flex-1 truncate">{s.label}</span>
              <span className="font-medium">{(props.format ?? number)(s.values[hover.at] ?? null, s)}</span>
            </p>
          ))}
        </div>
      ) : null}
    </div>
  );
}

function optionsOf(
  latest: { current: ChartProps },
  element: HTMLElement,
  setHover: (hover: Hover | null) => void,
): uPlot.Options {
  const { series, tz, isPartial, axes } = latest.current;
  const hasRight = series.some((s) => s.axis === "right");
  const axis = { stroke: role("--muted"), ticks: { show: false }, font: "11px sans-serif" };
  const grid = { stroke: role("--line"), width: 1 };
  const spanMs = () => (latest.current.times.at(-1) ?? 0) - (latest.current.times[0] ?? 0);
  const left = axes?.left ?? short;
  const right = axes?.right ?? ((value: number) => percent(value, 0));
  /** Thresholds are worth seeing though nothing reaches them. */
  const highest = (max: number) => Math.max(max, ...(latest.current.lines ?? []).map((l) => l.value));
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: {
        range: () => {
          const { times, stepMs } = latest.current;
          const first = times[0] ?? 0;
          return [first / 1_000, ((times.at(-1) ?? first) + stepOf(times, stepMs)) / 1_000];
        },
      },
      y: { range: (_, min, max) => [Math.min(0, min ?? 0), highest(max ?? 0) * 1.05 || 1] },
      right: { range: [0, 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 26, values: (_, at) => at.map((s) => tick(s * 1_000, tz, spanMs())) },
      { ...axis, grid, size: 52, values: (_, at) => at.map(left) },
      ...(hasRight
        ? [
            {
              ...axis,
              grid: { show: false },
              scale: "right",
              side: 1 as const,
              size: 52,
              values: (_: uPlot, at: number[]) => at.map(right),
            },
          ]
        : []),
    ],
    series: [
      {},
      ...series.map((s): uPlot.Series => {
        const color = resolve(s.color);
        const bars = s.kind === "bar" && uPlot.paths.bars?.({ size: [0.8, 36] });
        return {
          label: s.label,
          scale: s.axis === "right" ? "right" : "y",
          stroke: color,
          width: bars ? 0 : s.isNoise ? 0.75 : s.isFaint ? 1 : 2,
          ...(s.isNoise ? { alpha: 0.45 } : {}),
          ...(bars ? { paths: bars, fill: color, alpha: s.isFaint || isPartial ? 0.4 : 0.9 } : {}),
          ...(!bars && !s.isNoise && (s.isFaint || isPartial) ? { dash: [5, 4] } : {}),
          points: { show: false },
        };
      }),
    ],
    hooks: {
      drawClear: [(plot) => shadeOpenStep(plot, latest.current)],
      draw: [(plot) => drawLines(plot, latest.current)],
      setCursor: [
        (plot) => {
          const { idx, left: x } = plot.cursor;
          const isOver = idx !== null && idx !== undefined && x !== undefined && x >= 0;
          setHover(isOver ? { at: idx, left: x + plot.over.offsetLeft, width: element.clientWidth } : null);
        },
      ],
      ready: [
        (plot) => {
          plot.over.addEventListener("click", () => pickNearest(plot, latest.current));
        },
      ],
    },
  };
}

function shadeOpenStep(plot: uPlot, { openFromMs }: ChartProps): void {
  if (!openFromMs) return;
  const { left, top, width, height } = plot.bbox;
  const from = Math.max(left, plot.valToPos(openFromMs / 1_000, "x", true));
  plot.ctx.save();
  plot.ctx.fillStyle = role("--raised");
  plot.ctx.fillRect(from, top, Math.max(0, left + width - from), height);
  plot.ctx.restore();
}

function drawLines(plot: uPlot, { lines = [] }: ChartProps): void {
  const { left, width } = plot.bbox;
  const scale = window.devicePixelRatio || 1;
  for (const line of lines) {
    const y = plot.valToPos(line.value, line.axis === "right" ? "right" : "y", true);
    plot.ctx.save();
    plot.ctx.strokeStyle = resolve(line.color);
    plot.ctx.fillStyle = resolve(line.color);
    plot.ctx.lineWidth = scale;
    plot.ctx.setLineDash([6 * scale, 4 * scale]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(left, y);
    plot.ctx.lineTo(left + width, y);
    plot.ctx.stroke();
    plot.ctx.font = `${11 * scale}px sans-serif`;
    plot.ctx.textAlign = "left";
    plot.ctx.textBaseline = "top";
    plot.ctx.fillText(line.label, left + 5 * scale, y + 3 * scale);
    plot.ctx.restore();
  }
}

/** A click goes to the line that passes closest to it. */
function pickNearest(plot: uPlot, { times, series, onPick }: ChartProps): void {
  const { idx, top } = plot.cursor;
  const time = idx === null || idx === undefined ? undefined : times[idx];
  if (!onPick || time === undefined || idx === null || idx === undefined) return;
  const distance = (value: number | null | undefined, axis: string) =>
    value === null || value === undefined
      ? Number.POSITIVE_INFINITY
      : Math.abs(plot.valToPos(value, axis) - (top ?? 0));
  const near = series
    .map((s) => ({ s, far: distance(s.values[idx], s.axis === "right" ? "right" : "y") }))
    .sort((a, b) => a.far - b.far)[0];
  if (near) onPick(time, near.s);
}
