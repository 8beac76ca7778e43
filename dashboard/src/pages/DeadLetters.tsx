import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { CheckCircle2, RotateCcw } from "lucide-react";
import { useState } from "react";
import { type DeadLetter, deadLetters, type Retried, retryDeadLetters } from "../api/operations";
import { moment, number } from "../lib/format";
import { Panel } from "../panels/Panel";
import { Failed, Skeleton } from "../panels/states";
import { useView } from "../shell/useView";

const POLL_MS = 5_000;

export function DeadLetters() {
  const { tz } = useView();
  const client = useQueryClient();
  const [code, setCode] = useState<string | null>(null);
  const list = useInfiniteQuery({
    queryKey: ["dead-letters"],
    queryFn: ({ pageParam, signal }) => deadLetters(pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.cursor,
    refetchInterval: POLL_MS,
  });
  const retry = useMutation({
    mutationFn: retryDeadLetters,
    onSettled: () => client.invalidateQueries({ queryKey: ["dead-letters"] }),
  });
  if (list.isError && !list.data) return <Failed error={list.error} onRetry={() => void list.refetch()} />;
  if (!list.data) return <Skeleton height="h-96" />;
  const first = list.data.pages[0];
  const letters = list.data.pages.flatMap((page) => page.data);
  const codes = counted(letters);
  const shown = code ? letters.filter((l) => l.code === code) : letters;
  const button =
    "inline-flex items-center gap-1.5 rounded-md border border-line px-3 py-1.5 hover:bg-raised disabled:opacity-40";
  return (
    <div className="flex flex-col gap-4">
      <h1 className="sr-only">Dead letters</h1>
      <Panel
        title="Dead letters"
        hint={`${number(first?.total)} events were refused and kept${first?.dropped ? `; ${number(first.dropped)} older ones had to make room` : ""}`}
        staleSinceMs={list.isError ? list.dataUpdatedAt : null}
        tz={tz}
        actions={
          <button
            type="button"
            className={button}
            disabled={retry.isPending || letters.length === 0}
            onClick={() => retry.mutate(code ? shown.map((l) => l.id) : null)}
          >
            <RotateCcw size={14} aria-hidden /> {code ? `Retry these ${shown.length}` : "Retry all"}
          </button>
        }
      >
        <p role="status" className="min-h-5 text-xs text-muted">
          {retry.isPending
            ? "Sending them again"
            : retry.isError
              ? `Not sent: ${retry.error.message}`
              : retry.data
                ? outcome(retry.data)
                : ""}
        </p>
        {letters.length === 0 ? (
          <div className="flex flex-col items-center gap-2 py-10 text-center">
            <CheckCircle2 size={22} aria-hidden className="text-good" />
            <p className="font-medium">Nothing was refused</p>
            <p className="text-xs text-muted">
              An event that cannot be counted is kept here with the reason, and can be sent again.
            </p>
          </div>
        ) : (
          <>
            <ul aria-label="Reasons" className="mb-3 flex flex-wrap gap-2">
              {codes.map(([name, of]) => (
                <li key={name}>
                  <button
                    type="button"
                    aria-pressed={code === name}
                    onClick={() => setCode(code === name ? null : name)}
                    className={`rounded-full border px-3 py-1 text-xs ${code === name ? "border-accent bg-raised" : "border-line hover:bg-raised"}`}
                  >
                    {name} <span className="tabular text-muted">{of}</span>
                  </button>
                </li>
              ))}
            </ul>
            <ol aria-label="Refused events, the newest first" className="flex flex-col divide-y divide-line">
              {shown.map((letter) => (
                <Letter
                  key={letter.id}
                  letter={letter}
                  tz={tz}
                  onRetry={() => retry.mutate([letter.id])}
                  isBusy={retry.isPending}
                />
              ))}
            </ol>
            {list.hasNextPage ? (
              <button type="button" className={`${button} mt-3`} onClick={() => void list.fetchNextPage()}>
                Show older ones
              </button>
            ) : null}
          </>
        )}
      </Panel>
    </div>
  );
}

/** How many letters there are of each reason, the most frequent first. */
function counted(letters: DeadLetter[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const { code } of letters) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function outcome(retried: Retried): string {
  const parts = [`${number(retried.accepted)} of ${number(retried.retried)} count now`];
  if (retried.duplicates) parts.push(`${number(retried.duplicates)} had been counted before`);
  if (retried.still_rejected) parts.push(`${number(retried.still_rejected)} were refused again`);
  if (retried.not_retryable) parts.push(`${number(retried.not_retryable)} are cut and cannot be sent`);
  return parts.join(", ");
}

function Letter({
  letter,
  tz,
  onRetry,
  isBusy,
}: {
  letter: DeadLetter;
  tz: string;
  onRetry: () => void;
  isBusy: boolean;
}) {
  return (
    <li className="py-2">
      <div className="flex flex-wrap items-start gap-x-4 gap-y-1">
        <div className="min-w-0 flex-1">
          <p>
            <span className="font-medium">{letter.code}</span>
            {letter.field ? <span className="text-muted"> in {letter.field}</span> : null}
          </p>
          <p className="text-xs break-words text-muted">{letter.detail}</p>
        </div>
        <time dateTime={letter.arrived} className="text-xs whitespace-nowrap text-muted">
          {moment(Date.parse(letter.arrived), tz)}
        </time>
        <button
          type="button"
          disabled={letter.truncated || isBusy}
          title={letter.truncated ? "Too large to be kept whole" : undefined}
          onClick={onRetry}
          className="rounded border border-line px-2 py-0.5 text-xs hover:bg-raised disabled:opacity-40"
        >
          Retry
        </button>
      </div>
      <details className="mt-1 text-xs">
        <summary className="cursor-pointer text-muted">What came, request {letter.request_id}</summary>
        <pre
          className="mt-1 max-h-60 overflow-auto rounded-md bg-raised p-3 font-mono break-all whitespace-pre-wrap"
          tabIndex={0}
        >
          {letter.raw}
        </pre>
      </details>
    </li>
  );
}
