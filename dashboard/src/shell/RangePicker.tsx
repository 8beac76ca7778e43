import { CalendarRange } from "lucide-react";
import { Popover } from "radix-ui";
import { type FormEvent, useState } from "react";
import { moment } from "../lib/format";
import { midnight, momentOf, wallClock } from "../lib/zone";
import { RANGES, rangeMs } from "../search/view";
import { useView } from "./useView";

const iso = (ms: number) => new Date(ms).toISOString();

/** Days of the zone's calendar; the end of today is not there yet, and the page says so. */
const presets = (nowMs: number, tz: string) => [
  { label: "Last 15 minutes", range: "15m" },
  { label: "Last 30 days", range: "30d" },
  { label: "Last 90 days", range: "90d" },
  { label: "Today", from: midnight(nowMs, tz), to: midnight(nowMs, tz, 1) },
  { label: "Yesterday", from: midnight(nowMs, tz, -1), to: midnight(nowMs, tz) },
];

export function RangePicker() {
  const { view, tz, set } = useView();
  const isCustom = Boolean(view.from && view.to);
  const other = !isCustom && view.range && !(RANGES as readonly string[]).includes(view.range) ? view.range : null;
  return (
    <div className="flex items-center rounded-md border border-line bg-surface p-0.5">
      <fieldset className="flex">
        <legend className="sr-only">Range</legend>
        {RANGES.map((range) => {
          const isOn = !isCustom && (view.range ?? "24h") === range;
          return (
            <button
              key={range}
              type="button"
              aria-pressed={isOn}
              onClick={() => set({ range, from: undefined, to: undefined })}
              className={`rounded px-3 py-1 ${isOn ? "bg-accent font-medium text-accent-ink" : "text-muted hover:text-ink"}`}
            >
              {range}
            </button>
          );
        })}
      </fieldset>
      <Custom
        shown={
          isCustom
            ? `${moment(Date.parse(view.from ?? ""), tz)} – ${moment(Date.parse(view.to ?? ""), tz)}`
            : (other ?? "Custom")
        }
        isOn={isCustom || other !== null}
      />
    </div>
  );
}

function Custom({ shown, isOn }: { shown: string; isOn: boolean }) {
  const { view, tz, set } = useView();
  const [isOpen, setOpen] = useState(false);
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const open = (next: boolean) => {
    if (next) {
      const end = view.to ? Date.parse(view.to) : Date.now();
      setFrom(wallClock(view.from ? Date.parse(view.from) : end - rangeMs(view), tz));
      setTo(wallClock(end, tz));
    }
    setOpen(next);
  };
  const [start, end] = [momentOf(from, tz), momentOf(to, tz)];
  const isOrdered = start !== null && end !== null && start < end;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!isOrdered) return;
    set({ range: undefined, from: iso(start), to: iso(end) });
    setOpen(false);
  };
  const input = "rounded-md border border-line bg-canvas px-2 py-1.5";
  return (
    <Popover.Root open={isOpen} onOpenChange={open}>
      <Popover.Trigger asChild>
        <button
          type="button"
          className={`inline-flex items-center gap-1.5 rounded px-3 py-1 ${isOn ? "bg-accent font-medium text-accent-ink" : "text-muted hover:text-ink"}`}
        >
          <CalendarRange size={14} aria-hidden />
          <span className="sr-only">Range: </span>
          {shown}
        </button>
      </Popover.Trigger>
      <Popover.Content
        align="start"
        sideOffset={8}
        aria-label="Custom range"
        className="z-30 flex gap-4 rounded-lg border border-line bg-surface p-4 shadow-xl"
      >
        <ul className="flex flex-col gap-1">
          {presets(Date.now(), tz).map((preset) => (
            <li key={preset.label}>
              <button
                type="button"
                className="w-full rounded-md px-2.5 py-1.5 text-left whitespace-nowrap hover:bg-raised"
                onClick={() => {
                  set(
                    preset.range
                      ? { range: preset.range, from: undefined, to: undefined }
                      : { range: undefined, from: iso(preset.from ?? 0), to: iso(preset.to ?? 0) },
                  );
                  setOpen(false);
                }}
              >
                {preset.label}
              </button>
            </li>
          ))}
        </ul>
        <form onSubmit={submit} className="flex flex-col gap-3 border-l border-line pl-4">
          <label className="flex flex-col gap-1 text-xs text-muted">
            From
            <input
              type="datetime-local"
              required
              value={from}
              onChange={(e) => setFrom(e.target.value)}
              className={`${input} text-sm text-ink`}
            />
          </label>
          <label className="flex flex-col gap-1 text-xs text-muted">
            To, not included
            <input
              type="datetime-local"
              required
              value={to}
              onChange={(e) => setTo(e.target.value)}
              className={`${input} text-sm text-ink`}
            />
          </label>
          <p className={`text-xs ${isOrdered ? "text-muted" : "text-bad"}`}>
            {isOrdered ? `In ${tz}` : "The end must be after the start"}
          </p>
          <button
            type="submit"
            disabled={!isOrdered}
            className="rounded-md bg-accent px-3 py-1.5 font-medium text-accent-ink disabled:opacity-40"
          >
            Show
          </button>
        </form>
      </Popover.Content>
    </Popover.Root>
  );
}
