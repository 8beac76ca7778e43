import { Tooltip } from "radix-ui";
import { POLL_MS } from "../api/useAnswer";
import { clock } from "../lib/format";
import { type Light, useConnection } from "./useConnection";
import { useView } from "./useView";

/** Each has its shape and its word: the colour is not needed to tell them apart. */
const LOOK: Record<Light, { tone: string; shape: "circle" | "triangle" | "cross"; word: string }> = {
  green: { tone: "text-good", shape: "circle", word: "Connected" },
  yellow: { tone: "text-warn", shape: "triangle", word: "Degraded" },
  red: { tone: "text-bad", shape: "cross", word: "Unreachable" },
};
const PATHS = {
  circle: "M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
  triangle: "M6 .5L12 11.5H0z",
  cross: "M2 0L6 4L10 0L12 2L8 6L12 10L10 12L6 8L2 12L0 10L4 6L0 2z",
};

export function ConnectionLight() {
  const { light, reason, isPushed, lastAnswerMs } = useConnection();
  const { tz } = useView();
  const { tone, shape, word } = LOOK[light];
  const more =
    light === "red"
      ? lastAnswerMs
        ? `; the last answer came at ${clock(lastAnswerMs, tz)}`
        : ""
      : isPushed
        ? "; changes come at once"
        : `; asked every ${POLL_MS / 1_000} s`;
  const shown = light === "green" && isPushed ? "Live" : word;
  return (
    <Tooltip.Provider delayDuration={150}>
      {/* Beside the button: what is within one is read as its name only, and changes of it are not told. */}
      <span role="status" className="sr-only">
        {shown}
      </span>
      <Tooltip.Root>
        <Tooltip.Trigger asChild>
          <button
            type="button"
            className="inline-flex items-center gap-2 rounded-full border border-line px-3 py-1 text-xs"
            data-light={light}
            aria-label={`${shown}: ${reason}`}
          >
            <svg aria-hidden viewBox="0 0 12 12" className={`size-2.5 fill-current ${tone}`} data-shape={shape}>
              <path d={PATHS[shape]} />
            </svg>
            <span>{shown}</span>
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
