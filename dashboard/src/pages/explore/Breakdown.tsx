import type { Answer, Row } from "../../api/answer";
import { number } from "../../lib/format";
import { groupKey, groupLabel, restOf } from "./question";

export function Breakdown({
  rows,
  top,
  whole,
  aggregate,
  isCut,
  summary,
  onPick,
}: {
  rows: Row[];
  /** Bars that are drawn; the table and the CSV have all groups. */
  top: number;
  whole: Answer | undefined;
  aggregate: string;
  /** There are groups that `rows` has not. */
  isCut: boolean;
  /** Says what the bars are, for those who cannot see them. */
  summary: string;
  onPick: (group: Row["group"]) => void;
}) {
  const shown = rows.slice(0, top);
  const max = Math.max(0, ...shown.map((row) => Math.abs(row.values[aggregate] ?? 0))) || 1;
  const rest = rows.length > top ? restOf(shown, whole, aggregate) : null;
  return (
    <>
      <ol aria-label={summary} className="flex flex-col gap-1.5">
        {shown.map((row) => {
          const value = row.values[aggregate] ?? null;
          const before = row.compare?.values[aggregate];
          return (
            <li key={groupKey(row.group)}>
              <button
                type="button"
                disabled={!row.group}
                onClick={() => onPick(row.group)}
                className="relative block w-full overflow-hidden rounded-md px-3 py-1.5 text-left hover:bg-raised"
              >
                <span
                  aria-hidden
                  className="absolute inset-y-0 left-0 rounded-md bg-accent/20"
                  style={{ width: `${(100 * Math.abs(value ?? 0)) / max}%` }}
                />
                <span className="relative flex justify-between gap-4">
                  <span className="truncate">{groupLabel(row.group)}</span>
                  <span className="tabular shrink-0 font-medium">
                    {number(value)}
                    {row.compare ? <span className="ml-2 font-normal text-muted">{number(before)} before</span> : null}
                  </span>
                </span>
              </button>
            </li>
          );
        })}
        {rest !== null ? (
          <li className="flex justify-between gap-4 rounded-md border border-dashed border-line px-3 py-1.5 text-muted">
            <span>Other</span>
            <span className="tabular font-medium">{number(rest)}</span>
          </li>
        ) : null}
      </ol>
      {rows.length > top ? (
        <p className="mt-2 text-xs text-muted">
          The largest {top} of {number(rows.length)}
          {isCut ? " and more" : ""}; the table has {isCut ? "more of them" : "them all"}.
        </p>
      ) : null}
    </>
  );
}
