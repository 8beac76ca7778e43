import { ArrowDown, ArrowRight, ArrowUp } from "lucide-react";
import { change, UNKNOWN } from "../lib/format";

interface DeltaProps {
  now: number | null | undefined;
  before: number | null | undefined;
  /** What `before` is of; nothing is shown without a comparison. */
  comparedWith: string | null;
  /** A share changes by points, a count by percent. */
  isShare?: boolean;
  /** Which way is the good one, where there is one. */
  good?: "up" | "down";
  isTerse?: boolean;
}

/** How much a figure differs from the compared period. Direction is in the arrow and the sign, never in colour alone. */
export function Delta({ now, before, comparedWith, isShare, good, isTerse }: DeltaProps) {
  if (comparedWith === null) return null;
  const text = change(now, before, isShare);
  // What rounds to no change has no direction.
  const isSame = text === null || !/[1-9]/.test(text);
  const direction = isSame ? 0 : Math.sign((now ?? 0) - (before ?? 0));
  const Arrow = direction > 0 ? ArrowUp : direction < 0 ? ArrowDown : ArrowRight;
  const isGood = direction > 0 === (good === "up");
  const tone = !good || direction === 0 ? "text-muted" : isGood ? "text-good" : "text-bad";
  return (
    <span className={`tabular inline-flex items-center gap-0.5 text-xs ${tone}`} data-testid="delta">
      {text === null ? null : <Arrow size={12} aria-hidden />}
      {text ?? (isTerse ? <span aria-hidden>{UNKNOWN}</span> : "nothing to compare")}{" "}
      <span className={isTerse ? "sr-only" : "ml-1 text-muted"}>
        {text !== null
          ? `against the ${comparedWith}`
          : `${isTerse ? "nothing to compare " : ""}in the ${comparedWith}`}
      </span>
    </span>
  );
}
