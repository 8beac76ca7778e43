import { useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useMemo } from "react";
import { browserZone } from "../lib/zone";
import type { View } from "../search/view";

/** The page's view and how to change it; each change is an entry of the browser's history. */
export function useView() {
  const view = useSearch({ strict: false }) as View;
  const navigate = useNavigate();
  const set = useCallback(
    (change: Partial<{ [K in keyof View]: View[K] | undefined }>) =>
      navigate({ to: ".", search: (old: View) => ({ ...old, ...change }) as View }),
    [navigate],
  );
  const tz = useMemo(() => view.tz ?? browserZone(), [view.tz]);
  const addFilter = useCallback(
    (filter: string) => {
      const filters = view.filter ?? [];
      if (!filters.includes(filter)) set({ filter: [...filters, filter] });
    },
    [view.filter, set],
  );
  const removeFilter = useCallback(
    (filter: string) => {
      const rest = (view.filter ?? []).filter((f) => f !== filter);
      set({ filter: rest.length ? rest : undefined });
    },
    [view.filter, set],
  );
  return { view, tz, set, addFilter, removeFilter };
}
