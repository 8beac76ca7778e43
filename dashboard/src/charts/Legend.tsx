import type { Series } from "./model";

/** Names of what is drawn; those that stand for a group filter the page. */
export function Legend({
  series,
  pickSeries,
}: {
  series: Series[];
  pickSeries?: ((series: Series) => (() => void) | undefined) | undefined;
}) {
  if (series.length < 2) return null;
  return (
    <ul aria-label="Legend" className="flex min-w-0 flex-wrap items-center gap-x-4 gap-y-1 text-xs">
      {series.map((s) => {
        const pick = pickSeries?.(s);
        const mark = (
          <span
            aria-hidden
            className={s.kind === "bar" ? "size-2.5 shrink-0 rounded-sm" : "h-0.5 w-3 shrink-0 rounded-full"}
            style={{ background: s.color, opacity: s.isFaint || s.isNoise ? 0.5 : 1 }}
          />
        );
        return (
          <li key={s.key} className="flex max-w-60">
            {pick ? (
              <button
                type="button"
                className="inline-flex max-w-full items-center gap-1.5 hover:underline"
                onClick={pick}
              >
                {mark}
                <span className="truncate">{s.label}</span>
              </button>
            ) : (
              <span className="inline-flex max-w-full items-center gap-1.5 text-muted">
                {mark}
                <span className="truncate">{s.label}</span>
              </span>
            )}
          </li>
        );
      })}
    </ul>
  );
}
