// Numbers and times as people read them. Unknown is a dash, never a nought.

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

export const UNKNOWN = "–";

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return UNKNOWN;
  return Number.isInteger(value) ? whole.format(value) : fine.format(value);
}

export function short(value: number | null | undefined): string {
  if (value === null || value === undefined) return UNKNOWN;
  return Math.abs(value) < 10_000 ? number(value) : compact.format(value);
}

export function percent(value: number | null | undefined, digits = 1): string {
  return value === null || value === undefined ? UNKNOWN : `${(value * 100).toFixed(digits)} %`;
}

/** On an axis: as many digits as the value has, two at most. */
export function percentTick(value: number): string {
  const digits = [0, 1].find((n) => Math.abs(Number((value * 100).toFixed(n)) - value * 100) < 1e-9) ?? 2;
  return percent(value, digits);
}

/** `+- 1.2 %`, or nothing when the figure is exact. */
export function plusMinus(relative: number | undefined): string | null {
  return relative ? `± ${(relative * 100).toFixed(relative < 0.01 ? 2 : 1)} %` : null;
}

/** `+12.5 %`, `39 times`, of a share `+0.3 points`; null when there is nothing to compare with. */
export function change(
  now: number | null | undefined,
  before: number | null | undefined,
  isShare = false,
): string | null {
  if (now === null || now === undefined || before === null || before === undefined) return null;
  if (isShare) return `${signed((now - before) * 100, 2)} points`;
  if (before === 0) return now === 0 ? "no change" : null;
  return now / before >= 10 ? `${short(Math.round(now / before))} times` : `${signed((now / before - 1) * 100, 1)} %`;
}

function signed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

const parts = new Map<string, Intl.DateTimeFormat>();

function formatter(tz: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${tz}|${JSON.stringify(options)}`;
  let known = parts.get(key);
  if (!known) {
    known = new Intl.DateTimeFormat("en-GB", { timeZone: tz, hourCycle: "h23", ...options });
    parts.set(key, known);
  }
  return known;
}

/** A tick on a time axis: the hour within two days, else the day. */
export function tick(ms: number, tz: string, spanMs: number): string {
  const options: Intl.DateTimeFormatOptions =
    spanMs <= 2 * 86_400_000 ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  return formatter(tz, options).format(ms);
}

export function moment(ms: number, tz: string): string {
  return formatter(tz, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format(
    ms,
  );
}

export function clock(ms: number, tz: string): string {
  return formatter(tz, { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(ms);
}
