import { Link, Outlet } from "@tanstack/react-router";
import { BarChart3, LayoutDashboard, MailWarning, Moon, Network, Search, Sun } from "lucide-react";
import type { ReactNode } from "react";
import { Commands, Key, openPalette } from "./Commands";
import { ConnectionLight } from "./ConnectionLight";
import { FilterChips } from "./FilterChips";
import { Toolbar } from "./Toolbar";
import { toggleTheme, useTheme } from "./theme";

const PAGES: { to: string; label: string; icon: ReactNode }[] = [
  { to: "/", label: "Overview", icon: <LayoutDashboard size={16} aria-hidden /> },
  { to: "/explore", label: "Explore", icon: <BarChart3 size={16} aria-hidden /> },
  { to: "/cluster", label: "Cluster", icon: <Network size={16} aria-hidden /> },
  { to: "/dead-letters", label: "Dead letters", icon: <MailWarning size={16} aria-hidden /> },
];

export function Shell() {
  return (
    <div className="mx-auto flex min-h-screen max-w-[1600px] flex-col px-4 pb-8 sm:px-6">
      <a href="#main" className="sr-only focus:not-sr-only focus:absolute focus:p-2">
        Skip to the numbers
      </a>
      <header className="flex flex-wrap items-center gap-x-4 gap-y-2 py-3 lg:gap-x-6">
        <Link to="/" search={(old) => old} className="flex items-center gap-2 font-semibold tracking-tight">
          <img src="/assets/icon.svg" alt="" width={22} height={22} /> Tallymesh
        </Link>
        <nav aria-label="Pages" className="flex flex-wrap gap-1">
          {PAGES.map(({ to, label, icon }) => (
            <Link
              key={to}
              to={to}
              search={(old: object) => old}
              activeOptions={{ exact: to === "/", includeSearch: false }}
              className="inline-flex items-center gap-1.5 rounded-md px-2.5 py-1.5 text-muted hover:bg-raised lg:px-3 hover:text-ink max-lg:[&>svg]:hidden"
              activeProps={{ className: "bg-raised !text-ink", "aria-current": "page" }}
            >
              {icon}
              {label}
            </Link>
          ))}
        </nav>
        <div className="ml-auto flex items-center gap-3">
          <button
            type="button"
            onClick={openPalette}
            className="inline-flex items-center gap-2 rounded-md border border-line px-2.5 py-1 text-xs text-muted hover:bg-raised hover:text-ink"
          >
            <Search size={13} aria-hidden /> <span className="max-lg:sr-only">Search</span>
            <span aria-hidden className="max-lg:hidden">
              <Key name="Ctrl K" />
            </span>
          </button>
          <ThemeButton />
          <ConnectionLight />
        </div>
      </header>
      <Toolbar />
      <FilterChips />
      <Commands />
      <main id="main" tabIndex={-1} className="min-w-0 flex-1 pt-4 outline-none">
        <Outlet />
      </main>
    </div>
  );
}

function ThemeButton() {
  const theme = useTheme();
  return (
    <button
      type="button"
      className="rounded-md border border-line p-1.5 text-muted hover:bg-raised hover:text-ink"
      aria-label={`Use the ${theme === "dark" ? "light" : "dark"} theme`}
      onClick={toggleTheme}
    >
      {theme === "dark" ? <Sun size={14} aria-hidden /> : <Moon size={14} aria-hidden />}
    </button>
  );
}

export function NotFound() {
  return (
    <div className="py-20 text-center">
      <h1 className="text-lg font-medium">There is no such page</h1>
      <Link to="/" className="text-accent underline">
        To the overview
      </Link>
    </div>
  );
}
