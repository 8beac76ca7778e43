import type { z } from "zod";
import { type Answer, answerSchema, catalogueSchema, healthSchema, type ProblemBody, problemSchema } from "./answer";
import { type MetricQuery, queryString } from "./query";

/** The node said no, in words meant for people. */
export class Problem extends Error {
  readonly body: ProblemBody;
  constructor(body: ProblemBody) {
    super(body.detail ?? body.title);
    this.name = "Problem";
    this.body = body;
  }
}

/** No answer at all: the node is gone, or the network is. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super("The node does not answer", { cause });
    this.name = "Unreachable";
  }
}

/** A request may take this long before it counts as unanswered, in milliseconds; the node's own limit is 30 s. */
const REQUEST_TIMEOUT_MS = 35_000;

export async function request<T>(path: string, schema: z.ZodType<T>, init: RequestInit = {}): Promise<T> {
  const signals = [AbortSignal.timeout(REQUEST_TIMEOUT_MS), ...(init.signal ? [init.signal] : [])];
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal: AbortSignal.any(signals) });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Unreachable(error);
  }
  const body: unknown = await response.json().catch(() => null);
  const failing = healthSchema.safeParse(body).success;
  if (!response.ok && !failing) {
    const problem = problemSchema.safeParse(body);
    throw new Problem(
      problem.success ? problem.data : { title: response.statusText, status: response.status, code: "unknown" },
    );
  }
  return schema.parse(body);
}

/** `cached`: an answer that the node keeps will do, as old as its receipt says. */
export const ask = (query: MetricQuery, cached: boolean, signal?: AbortSignal): Promise<Answer> =>
  request(
    `/v1/query?${queryString(query)}${cached ? "&cache=on" : ""}&partial=allow`,
    answerSchema,
    signal ? { signal } : {},
  );

/** A node that takes longer than this to say how it is counts as gone, in milliseconds. */
const HEALTH_TIMEOUT_MS = 3_000;

export const health = (signal: AbortSignal) =>
  request("/health", healthSchema, { signal: AbortSignal.any([signal, AbortSignal.timeout(HEALTH_TIMEOUT_MS)]) });
export const catalogue = (signal?: AbortSignal) => request("/v1/metrics", catalogueSchema, signal ? { signal } : {});
