import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Download, Image, Terminal } from "lucide-react";
import { type ReactNode, useCallback, useRef, useState } from "react";
import { catalogue } from "../../api/client";
import { filterFor, queryString } from "../../api/query";
import { staleSince, useAnswer } from "../../api/useAnswer";
import { openFrom } from "../../charts/axis";
import { Chart } from "../../charts/Chart";
import { number } from "../../lib/format";
import { Panel } from "../../panels/Panel";
import { Picker } from "../../panels/Picker";
import { Failed, NoEventsYet, NothingMatches, Skeleton } from "../../panels/states";
import { STEP_MS, zoomOf } from "../../search/view";
import { useView } from "../../shell/useView";
import { Breakdown } from "./Breakdown";
import { GroupTable } from "./GroupTable";

import {
  AGGREGATES,
  aggregatesOf,
  groupKey,
  groupSeries,
  groupsQuery,
  isOverTime,
  metricOf,
  PICTURES,
  pictureOf,
  type Question,
  STEPS,
  seriesQuery,
  stepOf,
  TOPS,
  topOf,
  totalQuery,
  totalSeries,
  wholeQuery,
} from "./question";

export function Explore() {
  const question = useSearch({ strict: false }) as Question;
  const navigate = useNavigate();
  const { tz, set: setView, addFilter } = useView();
  const set = useCallback(
    (change: Partial<{ [K in keyof Question]: Question[K] | undefined }>) =>
      navigate({ to: ".", search: (old: object) => ({ ...old, ...change }) as never }),
    [navigate],
  );
  const metrics = useQuery({
    queryKey: ["catalogue"],
    queryFn: ({ signal }) => catalogue(signal),
    refetchInterval: 30_000,
  });
  const known = metrics.data?.metrics ?? [];
  const name = metricOf(question);
  const metric = known.find((m) => m.name === name);
  const dimensions = [...new Set(["event", ...(metric?.dimensions ?? ["source", "device_type", "country_code"])])];
  const groups = question.group ?? [];
  const overTime = isOverTime(question);
  const isGrouped = groups.length > 0;

  const ranked = useAnswer(groupsQuery(question, tz, overTime ? topOf(question) : undefined), {
    enabled: !overTime || isGrouped,
  });
  const total = useAnswer(totalQuery(question, tz), { enabled: overTime });
  const top = overTime && isGrouped ? (ranked.data?.data ?? []) : [];
  const parts = useAnswer(seriesQuery(question, tz, top), { enabled: overTime && top.length > 0 });
  const results = overTime ? (isGrouped ? [ranked, total, ...(top.length ? [parts] : [])] : [total]) : [ranked];
  const isBreakdown = pictureOf(question) === "breakdown";
  const whole = useAnswer(wholeQuery(question, tz), { enabled: isBreakdown && isGrouped });
  const main = overTime ? total : ranked;
  const aggregate = aggregatesOf(question)[0] ?? "count";
  const drawn = useRef<HTMLDivElement>(null);

  const pick = (group: Record<string, string | null> | undefined) => {
    for (const [dimension, value] of Object.entries(group ?? {})) addFilter(filterFor(dimension, value));
  };

  const groupOf = (key: string) => top.find((row) => groupKey(row.group) === key)?.group;
  const stepMs = STEP_MS[stepOf(question)] ?? 60_000;

  const failed = results.find((r) => r.isError && !r.data);
  let body: ReactNode;
  if (failed) {
    body = <Failed error={failed.error} onRetry={() => void Promise.all(results.map((r) => r.refetch()))} />;
  } else if (results.some((r) => !r.data)) {
    body = <Skeleton height="h-80" />;
  } else if (overTime && total.data) {
    const isNone = total.data.data.every(
      (row) => !row.values.count && aggregatesOf(question).every((a) => !row.values[a]),
    );
    const shown =
      isGrouped && parts.data && top.length
        ? groupSeries(question, top, parts.data, total.data)
        : totalSeries(question, total.data);
    body = isNone ? (
      <Nothing
        hasFilters={Boolean(question.filter?.length)}
        event={name}
        onClear={() => setView({ filter: undefined })}
      />
    ) : (
      <Chart
        summary={`${aggregatesOf(question).join(", ")} of ${name} per ${stepOf(question)}${isGrouped ? ` by ${groups.join(", ")}` : ""}`}
        times={shown.times}
        series={shown.series}
        tz={tz}
        height={360}
        stepMs={stepMs}
        openFromMs={openFrom(shown.times, stepMs, total.data.receipt.to, !question.from)}
        isPartial={!total.data.receipt.complete}
        onPick={(time, series) => {
          const group = groupOf(series.key);
          if (group) pick(group);
          else setView(zoomOf(time, stepMs));
        }}
        pickSeries={(series) => {
          const group = groupOf(series.key);
          return group && (() => pick(group));
        }}
      />
    );
  } else {
    const rows = ranked.data?.data ?? [];
    const isNone = rows.every((row) => aggregatesOf(question).every((a) => !row.values[a]));
    body = isNone ? (
      <Nothing
        hasFilters={Boolean(question.filter?.length)}
        event={name}
        onClear={() => setView({ filter: undefined })}
      />
    ) : isBreakdown ? (
      <Breakdown
        rows={rows}
        top={topOf(question)}
        whole={whole.data}
        aggregate={aggregate}
        summary={`${aggregate} of ${name}${isGrouped ? ` by ${groups.join(", ")}` : ""}, in order`}
        isCut={Boolean(ranked.data?.cursor)}
        onPick={pick}
      />
    ) : (
      <GroupTable
        rows={rows}
        dimensions={groups}
        aggregates={aggregatesOf(question)}
        summary={`${aggregatesOf(question).join(", ")} of ${name}${isGrouped ? ` by ${groups.join(", ")}` : ""}`}
        onPick={pick}
      />
    );
  }

  return (
    <div className="flex flex-col gap-4">
      <h1 className="sr-only">Explore</h1>
      <div className="flex flex-wrap items-center gap-2">
        <Picker
          label="Metric"
          shown={name === "*" ? "every event" : name}
          options={[{ value: "*", hint: "Every event" }, ...known.map((m) => ({ value: m.name, hint: m.description }))]}
          selected={[name]}
          onToggle={(value) => set({ metric: value === "*" ? undefined : value, group: undefined })}
        />
        <Picker
          label="Show"
          shown={aggregatesOf(question).join(", ")}
          options={AGGREGATES.map((value) => ({ value }))}
          selected={aggregatesOf(question)}
          onToggle={(value) => {
            const old = aggregatesOf(question);
            const next = old.includes(value) ? old.filter((a) => a !== value) : [...old, value];
            set({ agg: next.length ? next : undefined });
          }}
          isMany
        />
        <Picker
          label="By"
          shown={groups.length ? groups.join(", ") : "nothing"}
          options={dimensions.map((value) => ({ value }))}
          selected={groups}
          onToggle={(value) => {
            const next = groups.includes(value) ? groups.filter((d) => d !== value) : [...groups, value];
            set({ group: next.length ? next : undefined });
          }}
          isMany
        />
        <Choice
          label="Picture"
          options={PICTURES}
          value={pictureOf(question)}
          onChange={(picture) => set({ picture })}
        />
        {overTime ? (
          <Choice label="Step" options={STEPS} value={question.step ?? "auto"} onChange={(step) => set({ step })} />
        ) : null}
        {(overTime || isBreakdown) && isGrouped ? (
          <Choice label="Top" options={TOPS} value={topOf(question)} onChange={(n) => set({ top: n })} />
        ) : null}
      </div>
      <Panel
        title={name === "*" ? "Every event" : name}
        hint={
          metric?.description ?? `${aggregatesOf(question).join(", ")}${isGrouped ? ` by ${groups.join(", ")}` : ""}`
        }
        receipt={main.data?.receipt}
        estimated={aggregatesOf(question)}
        staleSinceMs={staleSince(...results, ...(isBreakdown && isGrouped ? [whole] : []))}
        isBusy={results.some((r) => r.isPlaceholderData)}
        tz={tz}
        actions={
          <Actions
            query={queryString(
              overTime
                ? isGrouped && top.length
                  ? seriesQuery(question, tz, top)
                  : totalQuery(question, tz)
                : groupsQuery(question, tz),
            )}
            drawn={drawn}
            name={name}
          />
        }
      >
        <div ref={drawn}>{body}</div>
        {main.data ? (
          <p className="mt-2 text-xs text-muted">Answered in {number(main.data.receipt.took_ms)} ms</p>
        ) : null}
      </Panel>
    </div>
  );
}

function Nothing({ hasFilters, event, onClear }: { hasFilters: boolean; event: string; onClear: () => void }) {
  return hasFilters ? (
    <NothingMatches onClear={onClear} />
  ) : (
    <NoEventsYet event={event === "*" ? "page_view" : event} />
  );
}

function Choice<T extends string | number>({
  label,
  options,
  value,
  onChange,
}: {
  label: string;
  options: readonly T[];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="flex rounded-md border border-line bg-surface p-0.5">
      <legend className="sr-only">{label}</legend>
      {options.map((option) => (
        <button
          key={option}
          type="button"
          aria-pressed={option === value}
          onClick={() => onChange(option)}
          className={`rounded px-2.5 py-1 ${option === value ? "bg-raised font-medium" : "text-muted hover:text-ink"}`}
        >
          {option}
        </button>
      ))}
    </fieldset>
  );
}

function Actions({
  query,
  drawn,
  name,
}: {
  query: string;
  drawn: React.RefObject<HTMLDivElement | null>;
  name: string;
}) {
  const [copied, setCopied] = useState(false);
  const button = "inline-flex items-center gap-1.5 rounded-md border border-line px-2 py-1 text-xs hover:bg-raised";
  const picture = async () => {
    if (!drawn.current) return;
    const { toPng } = await import("html-to-image");
    const background = getComputedStyle(document.documentElement).getPropertyValue("--surface");
    const link = document.createElement("a");
    link.href = await toPng(drawn.current, { backgroundColor: background, pixelRatio: 2 });
    link.download = `${name.replace(/[^\w-]+/g, "_")}.png`;
    link.click();
  };
  return (
    <>
      <a className={button} href={`/v1/query?${query}&format=csv`} download={`${name.replace(/[^\w-]+/g, "_")}.csv`}>
        <Download size={13} aria-hidden /> CSV
      </a>
      <button type="button" className={button} onClick={() => void picture()}>
        <Image size={13} aria-hidden /> PNG
      </button>
      <button
        type="button"
        className={button}
        onClick={() =>
          navigator.clipboard
            ?.writeText(`curl '${window.location.origin}/v1/query?${query}'`)
            .then(() => setCopied(true))
        }
      >
        <Terminal size={13} aria-hidden /> {copied ? "Copied" : "curl"}
      </button>
    </>
  );
}
