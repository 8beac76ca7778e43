// A button that opens a list to search in: metrics, dimensions.
import { Command } from "cmdk";
import { Check, ChevronDown } from "lucide-react";
import { Popover } from "radix-ui";
import { useState } from "react";

/** Entries shown at once; typing finds the others. */
const SHOWN_MAX = 200;

interface Option {
  value: string;
  hint?: string | null | undefined;
}

interface PickerProps {
  label: string;
  shown: string;
  options: Option[];
  selected: string[];
  onToggle: (value: string) => void;
  /** Stays open for several. */
  isMany?: boolean;
}

export function Picker({ label, shown, options, selected, onToggle, isMany }: PickerProps) {
  const [isOpen, setOpen] = useState(false);
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const found = options.filter((o) => !wanted || `${o.value} ${o.hint ?? ""}`.toLowerCase().includes(wanted));
  return (
    <Popover.Root open={isOpen} onOpenChange={setOpen}>
      <Popover.Trigger asChild>
        <button
          type="button"
          aria-label={`${label}: ${shown}`}
          className="inline-flex max-w-72 items-center gap-2 rounded-md border border-line bg-surface px-2.5 py-1.5 hover:bg-raised"
        >
          <span className="text-xs text-muted">{label}</span>
          <span className="truncate font-medium">{shown}</span>
          <ChevronDown size={14} aria-hidden className="shrink-0 text-muted" />
        </button>
      </Popover.Trigger>
      <Popover.Content
        align="start"
        sideOffset={6}
        className="z-30 w-80 rounded-lg border border-line bg-surface shadow-xl"
      >
        <Command shouldFilter={false} label={label}>
          <Command.Input
            value={text}
            onValueChange={setText}
            placeholder="Search"
            className="w-full border-b border-line bg-transparent px-3 py-2 outline-none"
          />
          <Command.List className="max-h-72 overflow-auto p-1">
            <Command.Empty className="px-3 py-4 text-center text-muted">Nothing found</Command.Empty>
            {found.slice(0, SHOWN_MAX).map((option) => (
              <Command.Item
                key={option.value}
                value={option.value}
                onSelect={() => {
                  onToggle(option.value);
                  if (!isMany) setOpen(false);
                }}
                className="flex cursor-pointer items-center gap-2 rounded-md px-2 py-1.5 data-[selected=true]:bg-raised"
              >
                <Check
                  size={14}
                  aria-hidden
                  className={selected.includes(option.value) ? "text-accent" : "invisible"}
                />
                <span className="min-w-0 flex-1">
                  <span className="block truncate">{option.value}</span>
                  {option.hint ? <span className="block truncate text-xs text-muted">{option.hint}</span> : null}
                </span>
              </Command.Item>
            ))}
          </Command.List>
          {found.length > SHOWN_MAX ? (
            <p className="border-t border-line px-3 py-2 text-xs text-muted">
              {found.length - SHOWN_MAX} more: type to find them
            </p>
          ) : null}
        </Command>
      </Popover.Content>
    </Popover.Root>
  );
}
