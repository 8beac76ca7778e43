// What a panel shows when it has no picture: loading, nothing yet, nothing that matches, an error. Never an empty frame, never a nought.
import { Check, Copy, FilterX, PlugZap, Ruler, SearchX } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Problem, Unreachable } from "../api/client";
import { dimensionOf } from "../api/query";

export function Skeleton({ height = "h-56" }: { height?: string }) {
  return (
    <div role="status" className={`${height} w-full animate-pulse rounded-lg bg-raised`}>
      <span className="sr-only">Loading</span>
    </div>
  );
}

function Message({ icon, title, children }: { icon: ReactNode; title: string; children?: ReactNode }) {
  return (
    <div className="flex h-full min-h-40 flex-col items-center justify-center gap-2 px-4 py-6 text-center">
      <span aria-hidden className="text-muted">
        {icon}
      </span>
      <p className="font-medium">{title}</p>
      {children}
    </div>
  );
}

/** A curl that works as it stands against this very node. */
export function curlFor(event: string): string {
  const body = JSON.stringify([{ event, user_id: "u1", session_id: "s1", source: "web" }]);
  return `curl -X POST ${window.location.origin}/v1/events -H 'content-type: application/json' -d '${body}'`;
}

export function NoEventsYet({ event }: { event: string }) {
  return (
    <Message icon={<PlugZap size={22} />} title="No events yet">
      <p className="max-w-md text-xs text-muted">Send the first one; it shows here within a second.</p>
      <CopyLine text={curlFor(event)} />
    </Message>
  );
}

/** The page is filtered by what this panel's metric does not count by: leaving the filter out unasked would show another number under the same name. */
export function ForeignFilter(props: { filter: string; onDrop: () => void; onRemove: () => void }) {
  const button = "rounded-md border border-line px-3 py-1.5 hover:bg-raised";
  return (
    <Message icon={<FilterX size={22} />} title={`This panel has no dimension “${dimensionOf(props.filter)}”`}>
      <p className="max-w-md text-xs break-words text-muted">
        The filter {props.filter} cannot be applied to its metric.
      </p>
      <div className="flex flex-wrap justify-center gap-2">
        <button type="button" className={button} onClick={props.onDrop}>
          Show it unfiltered
        </button>
        <button type="button" className={button} onClick={props.onRemove}>
          Remove the filter
        </button>
      </div>
    </Message>
  );
}

export function NoSuchMetric({ what, definition }: { what: string; definition: object }) {
  const curl = `curl -X POST ${window.location.origin}/v1/definitions -H 'content-type: application/json' -d '${JSON.stringify(definition)}'`;
  return (
    <Message icon={<Ruler size={22} />} title={what}>
      <p className="max-w-md text-xs text-muted">Define one; it counts what arrives from then on:</p>
      <CopyLine text={curl} />
    </Message>
  );
}

export function NothingMatches({ onClear }: { onClear: () => void }) {
  return (
    <Message icon={<SearchX size={22} />} title="Nothing matches">
      <button
        type="button"
        onClick={onClear}
        className="inline-flex items-center gap-1.5 rounded-md border border-line px-3 py-1.5 hover:bg-raised"
      >
        <FilterX size={14} aria-hidden /> Clear filters
      </button>
    </Message>
  );
}

export function Failed({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  const title = error instanceof Unreachable ? "The node does not answer" : "This could not be answered";
  const detail = error instanceof Problem ? error.message : error instanceof Unreachable ? null : String(error);
  return (
    <Message icon={<PlugZap size={22} />} title={title}>
      {detail ? <p className="max-w-md text-xs break-words text-muted">{detail}</p> : null}
      {error instanceof Problem && error.body.did_you_mean ? (
        <p className="text-xs">
          Did you mean <code className="font-mono">{error.body.did_you_mean}</code>?
        </p>
      ) : null}
      <button type="button" onClick={onRetry} className="rounded-md border border-line px-3 py-1.5 hover:bg-raised">
        Try again
      </button>
    </Message>
  );
}

export function CopyLine({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <div className="flex w-full max-w-xl items-center gap-2 rounded-md bg-raised px-3 py-2 text-left">
      <code className="min-w-0 flex-1 overflow-x-auto font-mono text-xs whitespace-nowrap" tabIndex={0}>
        {text}
      </code>
      <button
        type="button"
        aria-label="Copy"
        className="rounded p-1 hover:bg-surface"
        onClick={() => navigator.clipboard?.writeText(text).then(() => setCopied(true))}
      >
        {copied ? <Check size={14} aria-hidden /> : <Copy size={14} aria-hidden />}
      </button>
    </div>
  );
}
