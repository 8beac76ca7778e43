import type { Series } from "../../charts/model";

/** Names of what is drawn; those that stand for a group filter the page. */
export function Legend({
  series,
  onPick,
  canPick,
}: {
  series: Series[];
  onPick: (key: string) => void;
  canPick: (key: string) => boolean;
}) {
  if (series.length < 2) return null;
  return (
    <ul className="mt-2 flex flex-wrap gap-x-4 gap-y-1 text-xs">
      {series.map((s) => {
        const mark = (
          <span
            aria-hidden
            className="size-2.5 shrink-0 rounded-full"
            style={{ background: s.color, opacity: s.isFaint ? 0.5 : 1 }}
          />
        );
        return (
          <li key={s.key} className="max-w-60">
            {canPick(s.key) ? (
              <button
                type="button"
                className="inline-flex max-w-full items-center gap-1.5 hover:underline"
                onClick={() => onPick(s.key)}
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
