import {
  createColumnHelper,
  createSortedRowModel,
  rowSortingFeature,
  sortFns,
  tableFeatures,
  useTable,
} from "@tanstack/react-table";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useMemo, useState } from "react";
import type { Row } from "../../api/answer";
import { number } from "../../lib/format";
import { groupKey, shownGroup } from "./question";

/** Rows of one page of the table. */
const PAGE_ROWS = 50;

const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel(), sortFns });
const helper = createColumnHelper<typeof features, Row>();

export function GroupTable(props: {
  rows: Row[];
  dimensions: string[];
  aggregates: string[];
  /** Says what it has, for those who go from table to table. */
  summary: string;
  onPick: (group: Row["group"]) => void;
}) {
  const { rows, dimensions, aggregates, summary, onPick } = props;
  const [page, setPage] = useState(0);
  const columns = useMemo(
    () =>
      helper.columns([
        ...dimensions.map((d) => helper.accessor((row) => shownGroup(row.group?.[d]), { id: `d:${d}`, header: d })),
        ...aggregates.map((a) =>
          helper.accessor((row) => row.values[a] ?? undefined, { id: `a:${a}`, header: a, sortUndefined: "last" }),
        ),
      ]),
    [dimensions, aggregates],
  );
  const table = useTable({ features, columns, data: rows });
  const sorted = table.getRowModel().rows;
  const pages = Math.max(1, Math.ceil(sorted.length / PAGE_ROWS));
  const at = Math.min(page, pages - 1);
  return (
    <>
      <div className="overflow-x-auto">
        <table className="tabular w-full" aria-label={summary}>
          <thead className="text-left text-xs text-muted">
            {table.getHeaderGroups().map((group) => (
              <tr key={group.id}>
                {group.headers.map((header) => {
                  const direction = header.column.getIsSorted();
                  const isNumber = header.id.startsWith("a:");
                  return (
                    <th
                      key={header.id}
                      scope="col"
                      aria-sort={direction === "asc" ? "ascending" : direction === "desc" ? "descending" : "none"}
                      className={`py-2 pr-4 font-medium ${isNumber ? "text-right" : ""}`}
                    >
                      <button
                        type="button"
                        className="inline-flex items-center gap-1 hover:text-ink"
                        onClick={header.column.getToggleSortingHandler()}
                      >
                        {String(header.column.columnDef.header)}
                        {direction === "asc" ? (
                          <ArrowUp size={12} aria-hidden />
                        ) : direction === "desc" ? (
                          <ArrowDown size={12} aria-hidden />
                        ) : null}
                      </button>
                    </th>
                  );
                })}
              </tr>
            ))}
          </thead>
          <tbody>
            {sorted.slice(at * PAGE_ROWS, (at + 1) * PAGE_ROWS).map((row) => (
              <tr key={groupKey(row.original.group)} className="border-t border-line hover:bg-raised">
                {dimensions.map((d, i) => (
                  <td key={d} className="max-w-96 py-1.5 pr-4">
                    <button
                      type="button"
                      className="block max-w-full truncate text-left hover:underline"
                      // A dash is not read out.
                      aria-label={row.original.group?.[d] == null ? `no ${d}` : undefined}
                      onClick={() => onPick(i === 0 ? row.original.group : { [d]: row.original.group?.[d] ?? null })}
                    >
                      {shownGroup(row.original.group?.[d])}
                    </button>
                  </td>
                ))}
                {aggregates.map((a) => (
                  <td key={a} className="py-1.5 pr-4 text-right">
                    {number(row.original.values[a])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {pages > 1 ? (
        <nav aria-label="Pages of the table" className="mt-3 flex items-center gap-3 text-xs text-muted">
          <button
            type="button"
            disabled={at === 0}
            onClick={() => setPage(at - 1)}
            className="rounded border border-line px-2 py-1 disabled:opacity-40"
          >
            Back
          </button>
          {at + 1} of {pages}
          <button
            type="button"
            disabled={at + 1 === pages}
            onClick={() => setPage(at + 1)}
            className="rounded border border-line px-2 py-1 disabled:opacity-40"
          >
            Next
          </button>
        </nav>
      ) : null}
    </>
  );
}
