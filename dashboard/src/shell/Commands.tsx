// Keyboard shortcuts, their help, and the palette: all that can be done without the mouse.
import { useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { Dialog } from "./Dialog";
import { type Action, KeyReader, SHORTCUTS } from "./shortcuts";
import { toggleTheme } from "./theme";
import { useView } from "./useView";

const Palette = lazy(() => import("./Palette"));

type Open = "palette" | "metric" | "help" | null;
const OPEN_EVENT = "opencommands";

/** Opens the palette from anywhere on the page. */
export const openPalette = () => window.dispatchEvent(new Event(OPEN_EVENT));

export function Commands() {
  const [open, setOpen] = useState<Open>(null);
  const { set } = useView();
  const navigate = useNavigate();
  const act = useCallback(
    (action: Action) => {
      setOpen(null);
      switch (action.do) {
        case "go":
          void navigate({ to: action.to, search: (old: object) => old as never });
          break;
        case "range":
          void set({ range: action.range, from: undefined, to: undefined });
          break;
        case "theme":
          toggleTheme();
          break;
        case "clear":
          void set({ filter: undefined });
          break;
        default:
          setOpen(action.do);
      }
    },
    [navigate, set],
  );
  useEffect(() => {
    const keys = new KeyReader();
    const onKey = (event: KeyboardEvent) => {
      if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setOpen((old) => (old === "palette" ? null : "palette"));
        return;
      }
      if (
        event.metaKey ||
        event.ctrlKey ||
        event.altKey ||
        isTyping(event.target) ||
        document.querySelector("dialog[open]")
      ) {
        return;
      }
      const action = keys.press(event.key, event.timeStamp);
      if (action) {
        event.preventDefault();
        act(action);
      }
    };
    const onOpen = () => setOpen("palette");
    window.addEventListener("keydown", onKey);
    window.addEventListener(OPEN_EVENT, onOpen);
    return () => {
      window.removeEventListener("keydown", onKey);
      window.removeEventListener(OPEN_EVENT, onOpen);
    };
  }, [act]);
  const close = useCallback(() => setOpen(null), []);
  if (open === null) return null;
  if (open === "help") return <Help onClose={close} />;
  return (
    <Suspense>
      <Palette isForMetrics={open === "metric"} onAct={act} onClose={close} />
    </Suspense>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches("input, textarea, select"));
}

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog label="Keyboard shortcuts" onClose={onClose}>
      <div className="p-5">
        <h2 className="mb-3 font-medium">Keyboard shortcuts</h2>
        <dl className="grid grid-cols-[1fr_auto] gap-y-1.5">
          <dt>Search for anything</dt>
          <dd className="text-right">
            <Key name="Ctrl" /> <Key name="K" />
          </dd>
          {SHORTCUTS.map((s) => (
            <div key={s.label} className="contents">
              <dt>{s.label}</dt>
              <dd className="text-right">
                {s.keys.map((key, i) => (
                  <span key={key}>
                    {i > 0 ? <span className="text-xs text-muted"> then </span> : null}
                    <Key name={key} />
                  </span>
                ))}
              </dd>
            </div>
          ))}
        </dl>
        <button
          type="button"
          onClick={onClose}
          className="mt-4 rounded-md border border-line px-3 py-1.5 text-xs hover:bg-raised"
        >
          Close
        </button>
      </div>
    </Dialog>
  );
}

export function Key({ name }: { name: string }) {
  return (
    <kbd className="inline-block min-w-6 rounded border border-line bg-raised px-1.5 py-0.5 text-center font-mono text-xs">
      {name}
    </kbd>
  );
}
