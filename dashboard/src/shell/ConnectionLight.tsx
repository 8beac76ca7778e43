import { Tooltip } from "radix-ui";
import { POLL_MS } from "../api/useAnswer";
import { clock } from "../lib/format";
import { type Light, useConnection } from "./useConnection";
import { useView } from "./useView";

const LOOK: Record<Light, { dot: string; word: string }> = {
  green: { dot: "bg-good", word: "Connected" },
  yellow: { dot: "bg-warn", word: "Degraded" },
  red: { dot: "bg-bad", word: "Unreachable" },
};

export function ConnectionLight() {
  const { light, reason, isPushed, lastAnswerMs } = useConnection();
  const { tz } = useView();
  const { dot, word } = LOOK[light];
  const more =
    light === "red"
      ? lastAnswerMs
        ? `; the last answer came at ${clock(lastAnswerMs, tz)}`
        : ""
      : isPushed
        ? "; changes come at once"
        : `; asked every ${POLL_MS / 1_000} s`;
  return (
    <Tooltip.Provider delayDuration={150}>
      <Tooltip.Root>
        <Tooltip.Trigger asChild>
          <button
            type="button"
            className="inline-flex items-center gap-2 rounded-full border border-line px-3 py-1 text-xs"
            data-light={light}
          >
            <span aria-hidden className={`size-2.5 rounded-full ${dot}`} />
            <span role="status">{light === "green" && isPushed ? "Live" : word}</span>
            <span className="sr-only">: {reason}</span>
          </button>
        </Tooltip.Trigger>
        <Tooltip.Content
          side="bottom"
          sideOffset={6}
          collisionPadding={12}
          className="z-20 max-w-72 rounded-md border border-line bg-surface px-3 py-2 text-xs shadow-lg"
        >
          {reason}
          {more}
        </Tooltip.Content>
      </Tooltip.Root>
    </Tooltip.Provider>
  );
}
