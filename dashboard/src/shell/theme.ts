import { useSyncExternalStore } from "react";

const CHANGED = "themechange";
const current = () => (document.documentElement.dataset.theme === "light" ? "light" : "dark");

export function toggleTheme(): void {
  const next = current() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  // A browser that keeps nothing still gets the theme for this page.
  try {
    localStorage.setItem("theme", next);
  } catch {}
  window.dispatchEvent(new Event(CHANGED));
}

export const useTheme = (): "light" | "dark" =>
  useSyncExternalStore((listener) => {
    window.addEventListener(CHANGED, listener);
    return () => window.removeEventListener(CHANGED, listener);
  }, current);
