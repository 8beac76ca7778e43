// Answers over time as columns. Answers of two questions are brought together by time, not by place: one may be a step ahead of the other.
import type { Answer } from "../../api/answer";

type Column = (number | null)[];

export const timesOf = (answer: Answer | undefined): number[] =>
  (answer?.data ?? []).map((row) => Date.parse(row.time ?? ""));

export function columnAt(times: readonly number[], answer: Answer | undefined, name: string, isBefore = false): Column {
  const known = new Map<number, number | null>();
  for (const row of answer?.data ?? []) {
    const values = isBefore ? row.compare?.values : row.values;
    known.set(Date.parse(row.time ?? ""), values?.[name] ?? null);
  }
  return times.map((time) => known.get(time) ?? null);
}

/** Null when nothing at all is known: the sum of no figures is not nought. */
export function sum(column: Column): number | null {
  const known = column.filter((value) => value !== null);
  return known.length ? known.reduce((total, value) => total + value, 0) : null;
}

/** Shares over the steps around each, `width` of them: few events a step make a share that jumps. */
export function smoothed(parts: Column, wholes: Column, width: number): Column {
  const half = Math.floor(width / 2);
  const around = (column: Column, i: number) => sum(column.slice(Math.max(0, i - half), i + half + 1));
  // Unknown stays unknown, whatever is known around it.
  return wholes.map((whole, i) => (whole === null ? null : share(around(parts, i), around(wholes, i))));
}

/** Null where there is nothing to divide by, or one of both is not known. */
export function share(part: number | null | undefined, whole: number | null | undefined): number | null {
  return part === null || part === undefined || !whole ? null : part / whole;
}
