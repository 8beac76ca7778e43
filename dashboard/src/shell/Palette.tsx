import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { catalogue } from "../api/client";
import { COMPARISONS } from "../search/view";
import { Key } from "./Commands";
import { Dialog } from "./Dialog";
import { type Action, SHORTCUTS } from "./shortcuts";
import { useView } from "./useView";

interface PaletteProps {
  /** Only metrics are searched. */
  isForMetrics: boolean;
  onAct: (action: Action) => void;
  onClose: () => void;
}

const item = "flex cursor-pointer items-center gap-3 rounded-md px-3 py-2 data-[selected=true]:bg-raised";
const heading =
  "[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:py-1.5 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-muted";

export default function Palette({ isForMetrics, onAct, onClose }: PaletteProps) {
  const { view, set } = useView();
  const navigate = useNavigate();
  const metrics = useQuery({ queryKey: ["catalogue"], queryFn: ({ signal }) => catalogue(signal) });
  const explore = (metric: string) => {
    onClose();
    void navigate({ to: "/explore", search: (old: object) => ({ ...old, metric, group: undefined }) as never });
  };
  const what = isForMetrics ? "Search for a metric" : "Search for a metric, a page or a command";
  return (
    <Dialog label="Commands" onClose={onClose}>
      <Command label={what} loop>
        <Command.Input
          autoFocus
          placeholder={what}
          className="w-full border-b border-line bg-transparent px-4 py-3 outline-none placeholder:text-muted"
        />
        <Command.List className="max-h-[50vh] overflow-y-auto p-2">
          <Command.Empty className="px-3 py-6 text-center text-muted">Nothing found</Command.Empty>
          {isForMetrics ? null : (
            <Command.Group heading="Commands" className={heading}>
              {SHORTCUTS.filter(
                (s) => s.action.do !== "metric" && (s.action.do !== "clear" || view.filter?.length),
              ).map((s) => (
                <Command.Item key={s.label} value={s.label} className={item} onSelect={() => onAct(s.action)}>
                  <span className="flex-1">{s.label}</span>
                  <span className="flex gap-1">
                    {s.keys.map((key) => (
                      <Key key={key} name={key} />
                    ))}
                  </span>
                </Command.Item>
              ))}
              {Object.entries(COMPARISONS).map(([compare, name]) => (
                <Command.Item
                  key={compare}
                  value={`Compare with the ${name}`}
                  className={item}
                  onSelect={() => {
                    onClose();
                    void set({ compare: compare as keyof typeof COMPARISONS });
                  }}
                >
                  Compare with the {name}
                </Command.Item>
              ))}
            </Command.Group>
          )}
          <Command.Group heading="Metrics" className={heading}>
            {(metrics.data?.metrics ?? []).map((m) => (
              <Command.Item
                key={m.name}
                value={`metric ${m.name}`}
                keywords={[m.description ?? ""]}
                className={item}
                onSelect={() => explore(m.name)}
              >
                <span className="min-w-0 flex-1">
                  <span className="block truncate">{m.name}</span>
                  {m.description ? <span className="block truncate text-xs text-muted">{m.description}</span> : null}
                </span>
              </Command.Item>
            ))}
          </Command.Group>
        </Command.List>
      </Command>
    </Dialog>
  );
}
