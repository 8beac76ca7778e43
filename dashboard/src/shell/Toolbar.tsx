import { Moon, Sun } from "lucide-react";
import { useState } from "react";
import { browserZone, RANGES } from "../search/view";
import { useView } from "./useView";

const ZONES = [
  "UTC",
  "Europe/Berlin",
  "Europe/London",
  "America/New_York",
  "America/Los_Angeles",
  "Asia/Kolkata",
  "Asia/Kathmandu",
  "Asia/Tokyo",
  "Australia/Sydney",
];
const field = "rounded-md border border-line bg-surface px-2.5 py-1.5 text-sm";

export function Toolbar() {
  const { view, tz, set } = useView();
  const isCustom = Boolean(view.from && view.to);
  const zones = [...new Set([browserZone(), tz, ...ZONES])];
  return (
    <div className="flex flex-wrap items-center gap-2 border-b border-line pb-3">
      <fieldset className="flex rounded-md border border-line bg-surface p-0.5">
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
      <label className="inline-flex items-center gap-2 text-xs text-muted">
        <span className="sr-only">Compare with</span>
        <select
          className={`${field} text-ink`}
          value={view.compare ?? ""}
          onChange={(e) => set({ compare: (e.target.value || undefined) as typeof view.compare })}
        >
          <option value="">No comparison</option>
          <option value="previous">Previous period</option>
          <option value="week">Same weekday</option>
        </select>
      </label>
      <label className="inline-flex items-center gap-2 text-xs text-muted">
        <span className="sr-only">Time zone</span>
        <select
          className={`${field} text-ink`}
          value={tz}
          onChange={(e) => set({ tz: e.target.value === browserZone() ? undefined : e.target.value })}
        >
          {zones.map((zone) => (
            <option key={zone} value={zone}>
              {zone === browserZone() ? `${zone} (browser)` : zone}
            </option>
          ))}
        </select>
      </label>
      <ThemeButton />
    </div>
  );
}

function ThemeButton() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "dark");
  const next = theme === "dark" ? "light" : "dark";
  return (
    <button
      type="button"
      className="ml-auto rounded-md border border-line p-2 hover:bg-raised"
      aria-label={`Use the ${next} theme`}
      onClick={() => {
        document.documentElement.dataset.theme = next;
        // A browser that keeps nothing still gets the theme for this page.
        try {
          localStorage.setItem("theme", next);
        } catch {}
        setTheme(next);
      }}
    >
      {theme === "dark" ? <Sun size={15} aria-hidden /> : <Moon size={15} aria-hidden />}
    </button>
  );
}
