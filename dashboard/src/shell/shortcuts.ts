// What keys do. One list serves the keyboard, the help and the palette, so that none of them can say something else.
import { RANGES } from "../search/view";

export type Action =
  | { do: "go"; to: "/" | "/explore" | "/cluster" | "/dead-letters" }
  | { do: "range"; range: string }
  | { do: "theme" }
  | { do: "clear" }
  | { do: "palette" }
  | { do: "metric" }
  | { do: "help" };

export interface Shortcut {
  /** Pressed one after the other. */
  keys: string[];
  label: string;
  action: Action;
}

export const SHORTCUTS: Shortcut[] = [
  { keys: ["g", "o"], label: "Go to the overview", action: { do: "go", to: "/" } },
  { keys: ["g", "e"], label: "Go to explore", action: { do: "go", to: "/explore" } },
  { keys: ["g", "c"], label: "Go to the cluster", action: { do: "go", to: "/cluster" } },
  { keys: ["g", "d"], label: "Go to the dead letters", action: { do: "go", to: "/dead-letters" } },
  ...RANGES.map(
    (range, i): Shortcut => ({
      keys: [String(i + 1)],
      label: `Show the last ${range}`,
      action: { do: "range", range },
    }),
  ),
  { keys: ["t"], label: "Switch between dark and light", action: { do: "theme" } },
  { keys: ["x"], label: "Clear all filters", action: { do: "clear" } },
  { keys: ["/"], label: "Search for a metric", action: { do: "metric" } },
  { keys: ["?"], label: "Show the keyboard shortcuts", action: { do: "help" } },
];

/** Keys of one shortcut follow each other within this, in milliseconds. */
const SEQUENCE_MS = 1_000;

/** Reads keys one by one; gives the action that they complete. */
export class KeyReader {
  #pressed: string[] = [];
  #lastMs = 0;

  press(key: string, nowMs: number): Action | null {
    const isNext = nowMs - this.#lastMs <= SEQUENCE_MS;
    this.#lastMs = nowMs;
    const pressed = isNext ? [...this.#pressed, key] : [key];
    for (const keys of [pressed, [key]]) {
      const found = SHORTCUTS.find((s) => s.keys.join(" ") === keys.join(" "));
      if (found) {
        this.#pressed = [];
        return found.action;
      }
    }
    const isBeginning = (keys: string[]) =>
      SHORTCUTS.some((s) => s.keys.slice(0, keys.length).join(" ") === keys.join(" "));
    this.#pressed = isBeginning(pressed) ? pressed : isBeginning([key]) ? [key] : [];
    return null;
  }
}
