// What a chart is given, whoever draws it.

export interface Series {
  key: string;
  label: string;
  /** Same length as `Chart.times`; null where nothing is known. */
  values: (number | null)[];
  /** CSS colour; a role such as `var(--series-1)`. */
  color: string;
  kind: "line" | "bar";
  /** `right`: its own axis, for example a rate beside counts. */
  axis?: "left" | "right";
  /** Drawn dashed and pale: the compared period, or an answer that is not complete. */
  isFaint?: boolean;
  /** Drawn thin, behind the line that smooths it. */
  isNoise?: boolean;
}

export interface ChartProps {
  /** Says what is shown, for those who cannot see it. */
  summary: string;
  /** Starts of the steps, epoch milliseconds, ascending. */
  times: number[];
  series: Series[];
  tz: string;
  /** In pixels; without one the chart takes the room there is. */
  height?: number;
  /** Length of a step, milliseconds. */
  stepMs?: number;
  /** Nothing but the line: for a figure that stands beside. */
  isBare?: boolean;
  /** How the axes write their values; `right` is a share unless said otherwise. */
  axes?: { left?: (value: number) => string; right?: (value: number) => string };
  /** From here on the step is not over yet: drawn as such. */
  openFromMs?: number | null;
  /** Horizontal lines, such as a threshold. */
  lines?: { value: number; label: string; color: string; axis?: "left" | "right" }[];
  /** Drawn dashed: shards are missing from it. */
  isPartial?: boolean;
  format?: (value: number | null, series: Series) => string;
  onPick?: (timeMs: number, series: Series) => void;
  /** Names in the legend that can be clicked: those for which this gives something to do. */
  pickSeries?: (series: Series) => (() => void) | undefined;
}

/** Above this many points in all, drawing goes to the canvas. */
export const SVG_POINTS_MAX = 2_000;

export const SERIES_COLORS = Array.from({ length: 8 }, (_, i) => `var(--series-${i + 1})`);
