import { useSyncExternalStore } from "react";
import { LiveFeed } from "./live";

/** This tab's stream. */
export const feed = new LiveFeed((url) => new EventSource(url));
document.addEventListener("visibilitychange", () => feed.setPaused(document.visibilityState === "hidden"));

const subscribe = (listener: () => void) => feed.subscribe(listener);

/** Whether the answer to `query` comes by itself; without one, whether any does. */
export const useIsLive = (query?: string): boolean => useSyncExternalStore(subscribe, () => feed.isLive(query));
