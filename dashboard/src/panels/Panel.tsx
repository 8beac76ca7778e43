// The frame of every panel: title, figure, honesty. What is missing, stale or estimated is said here once, so that no chart can forget it.
import { AlertTriangle, Clock3, FilterX, Sigma } from "lucide-react";
import { type ReactNode, useId } from "react";
import type { Receipt } from "../api/answer";
import { clock, plusMinus } from "../lib/format";

interface PanelProps {
  title: string;
  hint?: string;
  figure?: ReactNode;
  actions?: ReactNode;
  receipt?: Receipt | undefined;
  /** Aggregates whose error is worth a word, such as `users`. */
  estimated?: string[];
  /** Set when what is shown is older than it should be. */
  staleSinceMs?: number | null;
  /** Filters of the page that do not hold here. */
  withoutFilters?: string[];
  /** A changed question is under way; what is shown answers the last one. */
  isBusy?: boolean;
  tz: string;
  children: ReactNode;
}

export function Panel(props: PanelProps) {
  const {
    title,
    hint,
    figure,
    actions,
    receipt,
    estimated = [],
    staleSinceMs,
    withoutFilters = [],
    isBusy = false,
    tz,
    children,
  } = props;
  const heading = useId();
  return (
    <section
      aria-labelledby={heading}
      className="relative flex min-w-0 flex-col rounded-xl border border-line bg-surface p-4"
    >
      <header className="mb-3 flex items-start gap-3">
        <div className="min-w-0 flex-1">
          <h2 id={heading} className="truncate font-medium text-ink">
            {title}
          </h2>
          {hint ? <p className="truncate text-xs text-muted">{hint}</p> : null}
        </div>
        <div className="flex shrink-0 items-center gap-2">{actions}</div>
      </header>
      {figure ? <div className="mb-2">{figure}</div> : null}
      <div aria-busy={isBusy} className={`min-h-0 flex-1 transition-opacity ${isBusy ? "opacity-60" : ""}`}>
        {children}
      </div>
      <Honesty
        receipt={receipt}
        estimated={estimated}
        staleSinceMs={staleSinceMs ?? null}
        withoutFilters={withoutFilters}
        tz={tz}
      />
    </section>
  );
}

function Honesty(props: {
  receipt: Receipt | undefined;
  estimated: string[];
  staleSinceMs: number | null;
  withoutFilters: string[];
  tz: string;
}) {
  const { receipt, estimated, staleSinceMs, withoutFilters, tz } = props;
  const notes: ReactNode[] = [];
  for (const filter of withoutFilters) {
    notes.push(<Note key={filter} icon={<FilterX size={13} />} tone="text-warn" text={`Not filtered by ${filter}`} />);
  }
  if (staleSinceMs !== null) {
    notes.push(
      <Note key="stale" icon={<Clock3 size={13} />} tone="text-warn" text={`Stale since ${clock(staleSinceMs, tz)}`} />,
    );
  }
  if (receipt && !receipt.complete) {
    const { answered, asked } = receipt.shards;
    notes.push(
      <Note
        key="partial"
        icon={<AlertTriangle size={13} />}
        tone="text-warn"
        text={`Partial: ${answered} of ${asked} shards`}
      />,
    );
  }
  if (receipt && receipt.other_share > 0) {
    const share = `${(receipt.other_share * 100).toFixed(1)} % of events in __other__`;
    notes.push(<Note key="other" icon={<AlertTriangle size={13} />} tone="text-warn" text={share} />);
  }
  for (const name of estimated) {
    const error = plusMinus(receipt?.error[name]);
    if (error) notes.push(<Note key={name} icon={<Sigma size={13} />} tone="text-muted" text={`${name} ${error}`} />);
  }
  return notes.length ? (
    <footer className="mt-3 flex flex-wrap gap-x-4 gap-y-1 text-xs" role="status">
      {notes}
    </footer>
  ) : null;
}

function Note({ icon, tone, text }: { icon: ReactNode; tone: string; text: string }) {
  return (
    <span className={`inline-flex items-center gap-1 ${tone}`}>
      <span aria-hidden>{icon}</span>
      {text}
    </span>
  );
}
