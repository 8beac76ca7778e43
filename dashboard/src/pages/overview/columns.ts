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

/** Null where there is nothing to divide by, or one of both is not known. */
export function share(part: number | null | undefined, whole: number | null | undefined): number | null {
  return part === null || part === undefined || !whole ? null : part / whole;
}
