import type { Row } from "../../api/answer";
import { number } from "../../lib/format";
import { groupKey, groupLabel } from "./question";

/** Bars that are drawn; the table and the CSV have all groups. */
const BARS_MAX = 50;

export function Breakdown({
  rows,
  aggregate,
  onPick,
}: {
  rows: Row[];
  aggregate: string;
  onPick: (group: Row["group"]) => void;
}) {
  const shown = rows.slice(0, BARS_MAX);
  const max = Math.max(0, ...shown.map((row) => Math.abs(row.values[aggregate] ?? 0))) || 1;
  return (
    <>
      <ol className="flex flex-col gap-1.5">
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
      </ol>
      {rows.length > BARS_MAX ? (
        <p className="mt-2 text-xs text-muted">
          The largest {BARS_MAX} of {number(rows.length)}; the table has them all.
        </p>
      ) : null}
    </>
  );
}
