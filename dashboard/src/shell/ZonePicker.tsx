import { useMemo } from "react";
import { browserZone, offsetMs, zones } from "../lib/zone";
import { Picker } from "../panels/Picker";

/** `UTC+05:45` */
function offsetOf(tz: string, nowMs: number): string {
  const minutes = Math.round(offsetMs(nowMs, tz) / 60_000);
  const two = (n: number) => String(n).padStart(2, "0");
  const of = Math.abs(minutes);
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(of / 60))}:${two(of % 60)}`;
}

export default function ZonePicker({ tz, onPick }: { tz: string; onPick: (tz: string) => void }) {
  const options = useMemo(() => {
    const nowMs = Date.now();
    const own = browserZone();
    return zones().map((zone) => ({
      value: zone,
      hint: zone === own ? `${offsetOf(zone, nowMs)}, this browser` : offsetOf(zone, nowMs),
    }));
  }, []);
  return <Picker label="Time zone" shown={tz} options={options} selected={[tz]} onToggle={onPick} />;
}
