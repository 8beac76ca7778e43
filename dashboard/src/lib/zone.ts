// Wall clocks of time zones, by the browser's own tables.

export const browserZone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** Names in use today that browsers list by an older one only, if at all. */
const RENAMED = ["Asia/Kolkata", "Asia/Kathmandu", "Asia/Ho_Chi_Minh", "Asia/Yangon", "Europe/Kyiv", "America/Nuuk"];

/** All zones that can be chosen, the browser's own and UTC first. */
export function zones(): string[] {
  const listed = [...Intl.supportedValuesOf("timeZone"), ...RENAMED.filter(isZone)].sort();
  return [...new Set([browserZone(), "UTC", ...listed])];
}

const known = new Map<string, boolean>();

/** Whether the browser can show times in it; an address may name anything. */
export function isZone(tz: string): boolean {
  let is = known.get(tz);
  if (is === undefined) {
    try {
      new Intl.DateTimeFormat("en", { timeZone: tz });
      is = true;
    } catch {
      is = false;
    }
    known.set(tz, is);
  }
  return is;
}

const clocks = new Map<string, Intl.DateTimeFormat>();

/** How far the wall clock is ahead of UTC at that moment, in milliseconds. */
export function offsetMs(ms: number, tz: string): number {
  let clock = clocks.get(tz);
  if (!clock) {
    clock = new Intl.DateTimeFormat("en-US", {
      timeZone: tz,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    clocks.set(tz, clock);
  }
  const part = Object.fromEntries(clock.formatToParts(ms).map(({ type, value }) => [type, Number(value)]));
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(ms / 1_000) * 1_000;
}

/** `2026-01-31T09:30` as `<input type="datetime-local">` has it. */
export const wallClock = (ms: number, tz: string): string =>
  new Date(ms + offsetMs(ms, tz)).toISOString().slice(0, "2026-01-31T09:30".length);

/** The moment of a wall clock; one that a change of clocks leaves out is the moment that far after the change. Null when it cannot be read. */
export function momentOf(wall: string, tz: string): number | null {
  const asUtc = Date.parse(`${wall}Z`);
  if (Number.isNaN(asUtc)) return null;
  const guess = asUtc - offsetMs(asUtc, tz);
  const again = asUtc - offsetMs(guess, tz);
  if (again === guess || again + offsetMs(again, tz) === asUtc) return again;
  return Math.max(guess, again);
}

/** Midnight of the day that `ms` is in, or of one some days off. */
export function midnight(ms: number, tz: string, days = 0): number {
  const wall = new Date(ms + offsetMs(ms, tz));
  wall.setUTCDate(wall.getUTCDate() + days);
  return momentOf(`${wall.toISOString().slice(0, "2026-01-31".length)}T00:00`, tz) ?? ms;
}
