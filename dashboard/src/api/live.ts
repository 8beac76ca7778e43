// Answers that come by themselves: one stream a tab carries every question on the page. What cannot be pushed is polled by `useAnswer`.
import { z } from "zod";
import { type Answer, answerSchema, groupSchema, type Row, receiptSchema, rowSchema } from "./answer";

const snapshotSchema = z.object({ query: z.number().int(), answer: answerSchema });
const deltaSchema = z.object({
  query: z.number().int(),
  changed: z.array(rowSchema),
  removed: z.array(z.object({ time: z.string().nullish(), group: groupSchema.nullish() })),
  receipt: receiptSchema.optional(),
});
const problemSchema = z.object({ query: z.number().int() });
export type Delta = Omit<z.infer<typeof deltaSchema>, "query">;

/** Questions come and go in bursts, as a page is built up: the stream is opened again when they have settled, in milliseconds. */
const SETTLE_MS = 100;
/** The node pushes answers of up to so many rows; questions that allow for more are polled. */
export const LIVE_ROWS_MAX = 20_000;
/** A refused stream is tried again after this long, doubling up to the most. */
const RETRY_MIN_MS = 5_000;
const RETRY_MAX_MS = 60_000;

const rowKey = (row: { time?: string | null | undefined; group?: Row["group"] | null }): string =>
  JSON.stringify([row.time ?? null, Object.entries(row.group ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))]);

/** What `order` of the question asks for: `-value` and `value` by the first aggregate, else by time. Unknown values come last. */
function comparator(query: string): (a: Row, b: Row) => number {
  const asked = new URLSearchParams(query);
  const aggregate = asked.get("agg")?.split(",")[0] ?? "count";
  const order = asked.get("order");
  const byKey = (a: Row, b: Row) => (rowKey(a) < rowKey(b) ? -1 : 1);
  if (order !== "value" && order !== "-value") {
    return (a, b) => Date.parse(a.time ?? "") - Date.parse(b.time ?? "") || byKey(a, b);
  }
  const sign = order === "value" ? 1 : -1;
  return (a, b) => {
    const [x, y] = [a.values[aggregate] ?? null, b.values[aggregate] ?? null];
    if (x === null || y === null) return x === y ? byKey(a, b) : x === null ? 1 : -1;
    return sign * (x - y) || byKey(a, b);
  };
}

/** The answer after a change. Rows are told apart by time and group. */
export function applyDelta(query: string, answer: Answer, delta: Delta): Answer {
  const rows = new Map(answer.data.map((row) => [rowKey(row), row]));
  for (const gone of delta.removed) rows.delete(rowKey(gone));
  for (const row of delta.changed) rows.set(rowKey(row), row);
  return {
    ...answer,
    data: [...rows.values()].sort(comparator(query)),
    receipt: delta.receipt ?? answer.receipt,
  };
}

/** What is used of an `EventSource`; it sends `Last-Event-ID` by itself when it connects again. */
export interface Stream {
  readonly readyState: number;
  addEventListener(type: string, listener: (event: MessageEvent) => void): void;
  close(): void;
}
const CLOSED = 2;

/** One stream for all questions watched; the last word on whether an answer is being kept up to date. */
export class LiveFeed {
  readonly #open: (url: string) => Stream;
  readonly #watchers = new Map<string, Set<(answer: Answer) => void>>();
  readonly #answers = new Map<string, Answer>();
  readonly #live = new Set<string>();
  readonly #listeners = new Set<() => void>();
  #stream: Stream | null = null;
  /** What the open stream carries, by its index. */
  #carried: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #retryMs = RETRY_MIN_MS;
  #isPaused = false;
  #heardMs = 0;

  constructor(open: (url: string) => Stream) {
    this.#open = open;
  }

  /** `onAnswer` gets every new answer to `query` until the returned function is called. */
  watch(query: string, onAnswer: (answer: Answer) => void): () => void {
    const watchers = this.#watchers.get(query) ?? new Set();
    this.#watchers.set(query, watchers.add(onAnswer));
    this.#settle();
    return () => {
      watchers.delete(onAnswer);
      if (watchers.size === 0 && this.#watchers.get(query) === watchers) this.#watchers.delete(query);
      this.#settle();
    };
  }

  /** Whether the answer to `query` is kept up to date; without one, whether any is. */
  isLive(query?: string): boolean {
    return query === undefined ? this.#live.size > 0 : this.#live.has(query);
  }

  /** When the stream last carried this page's answers, epoch milliseconds; 0: never. */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** Calls back when what `isLive` says may have changed. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A tab that nobody looks at holds no connection: browsers allow few to one host. */
  setPaused(isPaused: boolean): void {
    if (this.#isPaused === isPaused) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#drop();
    else this.#settle();
  }

  #settle(delayMs = SETTLE_MS): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reopen(), delayMs);
  }

  #reopen(): void {
    const wanted = [...this.#watchers.keys()].sort();
    if (this.#isPaused || wanted.length === 0) {
      this.#drop();
      return;
    }
    if (this.#stream && wanted.length === this.#carried.length && wanted.every((q, i) => q === this.#carried[i]))
      return;
    this.#stream?.close();
    for (const query of [...this.#answers.keys()]) if (!this.#watchers.has(query)) this.#forget(query);
    this.#carried = wanted;
    const stream = this.#open(`/v1/live?${new URLSearchParams(wanted.map((q) => ["query", `${q}&partial=allow`]))}`);
    this.#stream = stream;
    const ifCurrent = (react: (event: MessageEvent) => void) => (event: MessageEvent) => {
      if (this.#stream === stream) react(event);
    };
    stream.addEventListener(
      "open",
      ifCurrent(() => this.#opened()),
    );
    stream.addEventListener(
      "snapshot",
      ifCurrent((event) => this.#take(event, snapshotSchema, (s) => s.answer)),
    );
    stream.addEventListener(
      "delta",
      ifCurrent((event) =>
        this.#take(event, deltaSchema, (delta, query, known) => (known ? applyDelta(query, known, delta) : null)),
      ),
    );
    stream.addEventListener(
      "problem",
      ifCurrent((event) => this.#held(event)),
    );
    stream.addEventListener(
      "heartbeat",
      ifCurrent(() => this.#heard()),
    );
    stream.addEventListener(
      "error",
      ifCurrent(() => this.#failed(stream)),
    );
  }

  #heard(): void {
    this.#heardMs = Date.now();
  }

  /** After a reconnect the node may have nothing new to say: what was known still holds. */
  #opened(): void {
    this.#retryMs = RETRY_MIN_MS;
    this.#heard();
    for (const query of this.#carried) if (this.#answers.has(query)) this.#live.add(query);
    this.#tell();
  }

  #take<T extends { query: number }>(
    event: MessageEvent,
    schema: z.ZodType<T>,
    next: (message: T, query: string, known: Answer | undefined) => Answer | null,
  ): void {
    const message = schema.safeParse(parsed(event.data));
    const query = message.success ? this.#carried[message.data.query] : undefined;
    const answer = message.success && query !== undefined ? next(message.data, query, this.#answers.get(query)) : null;
    if (query === undefined || !answer) {
      this.#giveUp();
      return;
    }
    this.#heard();
    this.#answers.set(query, answer);
    for (const watcher of this.#watchers.get(query) ?? []) watcher(answer);
    if (!this.#live.has(query)) {
      this.#live.add(query);
      this.#tell();
    }
  }

  /** No newer answer to that question for now: polling says why. Its next event makes it live again. */
  #held(event: MessageEvent): void {
    const message = problemSchema.safeParse(parsed(event.data));
    const query = message.success ? this.#carried[message.data.query] : undefined;
    if (query !== undefined && this.#live.delete(query)) this.#tell();
  }

  #failed(stream: Stream): void {
    if (stream.readyState === CLOSED) {
      this.#giveUp();
      return;
    }
    // It connects again by itself; until it has, the answers are polled.
    if (this.#live.size > 0) this.#heard();
    this.#live.clear();
    this.#tell();
  }

  /** Refused, or not understood: a fresh stream later. */
  #giveUp(): void {
    this.#drop();
    this.#settle(this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS);
  }

  #drop(): void {
    this.#stream?.close();
    this.#stream = null;
    this.#carried = [];
    for (const query of [...this.#answers.keys()]) this.#forget(query);
    this.#tell();
  }

  #forget(query: string): void {
    this.#answers.delete(query);
    this.#live.delete(query);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
