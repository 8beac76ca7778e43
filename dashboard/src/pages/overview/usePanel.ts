// What a panel of the overview asks: its own question within the page's range, zone, comparison and filters.
import { useState } from "react";
import { Problem } from "../../api/client";
import { dimensionOf, type MetricQuery } from "../../api/query";
import type { Result } from "../../api/useAnswer";
import { COMPARISONS, timeOf } from "../../search/view";
import { useView } from "../../shell/useView";

export function usePanel() {
  const { view, tz, set, addFilter, removeFilter } = useView();
  const [dropped, setDropped] = useState<string[]>([]);
  const all = view.filter ?? [];
  const filters = all.filter((f) => !dropped.includes(f));
  const inView = (own: MetricQuery): MetricQuery => {
    const held = [...(own.filters ?? []), ...filters];
    return {
      ...timeOf(view),
      tz,
      ...(view.compare ? { compare: view.compare } : {}),
      ...own,
      ...(held.length ? { filters: held } : {}),
    };
  };
  return {
    view,
    tz,
    set,
    addFilter,
    removeFilter,
    inView,
    filters,
    /** Filters of the page that this panel is shown without, because its metric has no such dimension. */
    withoutFilters: all.filter((f) => dropped.includes(f)),
    dropFilter: (filter: string) => setDropped((old) => [...old, filter]),
    isRelative: !(view.from && view.to),
    comparedWith: view.compare ? COMPARISONS[view.compare] : null,
  };
}
export type PanelView = ReturnType<typeof usePanel>;

/** The filter that a metric cannot be asked with, when that is why there is no answer. */
export function foreignFilter(
  results: readonly Pick<Result, "error" | "data">[],
  filters: readonly string[],
): string | null {
  for (const { error, data } of results) {
    if (data || !(error instanceof Problem) || error.body.code !== "unknown_dimension") continue;
    const named = filters.find((f) => error.message.includes(`no dimension \`${dimensionOf(f)}\``));
    return named ?? filters[0] ?? null;
  }
  return null;
}
