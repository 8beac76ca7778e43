import type { Metric } from "../../api/answer";

const EVENT = "feature_used";
const DIMENSIONS = ["feature", "properties.feature"];

/** The metric that counts `feature_used` by its feature, and how it spells that dimension. */
export function featureMetric(metrics: readonly Metric[]): { metric: string; dimension: string } | null {
  for (const { name, kind, events, dimensions } of metrics) {
    if (kind !== "defined" || !events?.every((event) => event === EVENT)) continue;
    const dimension = dimensions.find((d) => DIMENSIONS.includes(d));
    if (dimension !== undefined) return { metric: name, dimension };
  }
  return null;
}
