import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { number, short, tick } from "../lib/format";
import type { ChartProps } from "./model";

const role = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `var(--x)` as the canvas needs it. */
const resolve = (color: string) => (color.startsWith("var(") ? role(color.slice(4, -1)) : color);

export default function CanvasChart({ times, series, tz, isPartial, format }: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
    const axis = {
      stroke: role("--muted"),
      grid: { stroke: role("--line"), width: 1 },
      ticks: { show: false },
      font: "11px sans-serif",
    };
    const options: uPlot.Options = {
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      cursor: { points: { size: 6 } },
      axes: [
        { ...axis, values: (_, splits) => splits.map((s) => tick(s * 1_000, tz, span)) },
        { ...axis, size: 48, values: (_, splits) => splits.map((v) => short(v)) },
      ],
      series: [
        {},
        ...series.map((s) => ({
          label: s.label,
          stroke: resolve(s.color),
          width: s.isFaint ? 1 : 1.5,
          ...(s.isFaint || isPartial ? { dash: [5, 4] } : {}),
          points: { show: false },
          value: (_: uPlot, v: number | null) => (format ? format(v, s) : number(v)),
        })),
      ],
    };
    const data: uPlot.AlignedData = [times.map((t) => t / 1_000), ...series.map((s) => s.values)];
    const plot = new uPlot(options, data, element);
    const observer = new ResizeObserver(() =>
      plot.setSize({ width: element.clientWidth, height: element.clientHeight }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [times, series, tz, isPartial, format]);
  return <div ref={host} className="h-full w-full" />;
}
