import { X } from "lucide-react";
import { useView } from "./useView";

export function FilterChips() {
  const { view, set, removeFilter } = useView();
  const filters = view.filter ?? [];
  if (filters.length === 0) return null;
  return (
    <ul aria-label="Filters" className="flex flex-wrap items-center gap-2 pt-1">
      {filters.map((filter) => (
        <li
          key={filter}
          className="inline-flex max-w-80 items-center gap-1 rounded-full bg-raised py-1 pr-1 pl-3 text-xs"
        >
          <span className="truncate">{filter}</span>
          <button
            type="button"
            aria-label={`Remove the filter ${filter}`}
            className="rounded-full p-1 hover:bg-line"
            onClick={() => removeFilter(filter)}
          >
            <X size={12} aria-hidden />
          </button>
        </li>
      ))}
      <li>
        <button
          type="button"
          className="text-xs text-muted underline hover:text-ink"
          onClick={() => set({ filter: undefined })}
        >
          Clear all
        </button>
      </li>
    </ul>
  );
}
