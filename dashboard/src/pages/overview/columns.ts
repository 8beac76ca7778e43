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

/** Sums of what is known of the steps around each, in a time that does not grow with their number: a week has ten thousand minutes. */
function around(column: Column, width: number): (i: number) => number | null {
  const half = Math.floor(width / 2);
  const [total, known] = [[0], [0]];
  for (const value of column) {
    total.push((total.at(-1) ?? 0) + (value ?? 0));
    known.push((known.at(-1) ?? 0) + Number(value !== null));
  }
  return (i) => {
    const [from, to] = [Math.max(0, i - half), Math.min(column.length, i + half + 1)];
    const between = (upTo: number[]) => (upTo[to] ?? 0) - (upTo[from] ?? 0);
    return between(known) ? between(total) : null;
  };
}

/** Shares over the steps around each, `width` of them: few events a step make a share that jumps. */
export function smoothed(parts: Column, wholes: Column, width: number): Column {
  const [part, whole] = [around(parts, width), around(wholes, width)];
  // Unknown stays unknown, whatever is known around it.
  return wholes.map((own, i) => (own === null ? null : share(part(i), whole(i))));
}

/** Null where there is nothing to divide by, or one of both is not known. */
export function share(part: number | null | undefined, whole: number | null | undefined): number | null {
  return part === null || part === undefined || !whole ? null : part / whole;
}
