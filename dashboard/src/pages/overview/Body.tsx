import type { ReactNode } from "react";
import type { Result } from "../../api/useAnswer";
import { Failed, ForeignFilter, NoEventsYet, NothingMatches, Skeleton } from "../../panels/states";
import { foreignFilter, type PanelView } from "./usePanel";

interface BodyProps {
  panel: PanelView;
  results: Result[];
  /** An event that would fill this panel. */
  event: string;
  isEmpty: boolean;
  children: ReactNode;
}

/** The picture, or why there is none. */
export function Body({ panel, results, event, isEmpty, children }: BodyProps) {
  const foreign = foreignFilter(results, panel.filters);
  if (foreign !== null) {
    return (
      <ForeignFilter
        filter={foreign}
        onDrop={() => panel.dropFilter(foreign)}
        onRemove={() => panel.removeFilter(foreign)}
      />
    );
  }
  const failed = results.find((r) => r.isError && !r.data);
  if (failed) {
    return <Failed error={failed.error} onRetry={() => void Promise.all(results.map((r) => r.refetch()))} />;
  }
  if (results.some((r) => !r.data)) return <Skeleton height="h-full" />;
  if (isEmpty) {
    return panel.filters.length ? (
      <NothingMatches onClear={() => panel.set({ filter: undefined })} />
    ) : (
      <NoEventsYet event={event} />
    );
  }
  return children;
}
