// Where a time axis has its ticks, and from where on a step is not over yet.
import { offsetMs } from "../lib/zone";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Distances of ticks that people read easily. */
const TICK_MS = [1, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1_440, 2_880, 10_080, 20_160].map((m) => m * MINUTE_MS);

/** Starts of steps at round times of the zone's wall clock, about `ticksMax` at most. */
export function ticksOf(times: readonly number[], tz: string, ticksMax = 8): number[] {
  const [first, last] = [times[0], times.at(-1)];
  if (first === undefined || last === undefined) return [];
  const every =
    TICK_MS.find((ms) => (last - first) / ms <= ticksMax) ?? Math.ceil((last - first) / ticksMax / DAY_MS) * DAY_MS;
  const ticks = times.filter((ms) => (ms + offsetMs(ms, tz)) % every === 0);
  return ticks.length >= 2 ? ticks : times.filter((_, i) => i % Math.ceil(times.length / ticksMax) === 0);
}

/** The distance of two steps, milliseconds; of a single one, `fallbackMs`. */
export const stepOf = (times: readonly number[], fallbackMs = MINUTE_MS): number =>
  times.length > 1 ? (times[1] ?? 0) - (times[0] ?? 0) : fallbackMs;

/**
 * The start of the last step when it is not over yet, else null. An answer to a relative range ends now, rounded up to the minute; a custom
 * range may have ended long ago, or not yet.
 */
export function openFrom(
  times: readonly number[],
  stepMs: number,
  to: string | undefined,
  isRelative: boolean,
  nowMs = Date.now(),
): number | null {
  const now = isRelative ? Date.parse(to ?? "") : nowMs;
  const open = times.find((ms) => ms + stepMs > now || (isRelative && ms + stepMs === now));
  return open ?? null;
}
