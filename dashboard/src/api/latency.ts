const SAMPLES_MAX = 60;
const SAMPLE_AGE_MAX_MS = 60_000;

/** How long answers took lately: while everything is pushed few are asked for, and a slow start must not count for ever. */
export class Latencies {
  #samples: { ms: number; atMs: number }[] = [];

  note(ms: number, nowMs: number): void {
    this.#samples = [...this.#samples, { ms, atMs: nowMs }].slice(-SAMPLES_MAX);
  }

  recent(nowMs: number): number[] {
    return this.#samples.filter((s) => nowMs - s.atMs <= SAMPLE_AGE_MAX_MS).map((s) => s.ms);
  }
}

export const latencies = new Latencies();

/** Every answered query says here how long it took, in milliseconds. */
export const noteLatency = (ms: number) => latencies.note(ms, performance.now());

export function p95(samples: readonly number[]): number | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.floor(0.95 * (sorted.length - 1))] ?? null;
}
