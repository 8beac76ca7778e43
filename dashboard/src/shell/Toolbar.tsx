import { lazy, Suspense } from "react";
import { browserZone } from "../lib/zone";
import { COMPARISONS } from "../search/view";
import { RangePicker } from "./RangePicker";
import { useView } from "./useView";

const ZonePicker = lazy(() => import("./ZonePicker"));
const field = "rounded-md border border-line bg-surface px-2.5 py-1.5";

export function Toolbar() {
  const { view, tz, set } = useView();
  return (
    <section aria-label="What is shown" className="flex flex-wrap items-center gap-2 border-b border-line pb-3">
      <RangePicker />
      <select
        aria-label="Compare with"
        className={field}
        value={view.compare ?? ""}
        onChange={(e) => set({ compare: (e.target.value || undefined) as typeof view.compare })}
      >
        <option value="">No comparison</option>
        {Object.entries(COMPARISONS).map(([value, name]) => (
          <option key={value} value={value}>
            {value === "week" ? "Same weekday, week before" : `Against the ${name}`}
          </option>
        ))}
      </select>
      <Suspense fallback={<span className={`${field} text-muted`}>{tz}</span>}>
        <ZonePicker tz={tz} onPick={(zone) => set({ tz: zone === browserZone() ? undefined : zone })} />
      </Suspense>
    </section>
  );
}
