// Events with known contents, and what must be on the screen: counted here from the list itself, by other code than the node's.

export interface SentEvent {
  event_id: string;
  event: string;
  timestamp: string;
  session_id: string;
  user_id: string;
  country_code: string | null;
  source: string;
  properties: { feature?: string };
}

/** Names that a careless page would run. */
export const EVIL_FEATURE = `<img src=x onerror="document.title='run'">`;
export const EVIL_EVENT = "<b>bold</b><script>document.title='run'</script>";

const MINUTE_MS = 60_000;
const START_MS = Date.now();
const COUNTRIES = ["DE", "FR", null] as const;

let made = 0;
function several(
  event: string,
  n: number,
  users: number,
  agoMinutes: (i: number) => number,
  feature?: string,
): SentEvent[] {
  return Array.from({ length: n }, (_, i) => {
    made += 1;
    return {
      event_id: `e${made}`,
      event,
      timestamp: new Date(START_MS - agoMinutes(i) * MINUTE_MS).toISOString(),
      session_id: `${event}-${i % users}`,
      user_id: `u${i % users}`,
      country_code: COUNTRIES[i % 3] ?? null,
      source: i % 2 ? "api" : "web",
      properties: feature === undefined ? {} : { feature },
    };
  });
}

/** Well inside the last 24 hours, and older than the last five minutes. */
const spread = (i: number) => 90 + ((i * 37) % 1_200);
/** Within the last five minutes for as long as the tests run. */
const justNow = () => 0;

const events = [
  ...several("page_view", 200, 40, spread),
  ...several("signup_started", 40, 40, spread),
  ...several("signup_completed", 14, 14, spread),
  ...several("feature_used", 60, 30, spread, "search"),
  ...several("feature_used", 45, 21, spread, "export"),
  ...several("feature_used", 9, 5, spread, EVIL_FEATURE),
  ...several("error_occurred", 3, 3, spread),
  ...several(EVIL_EVENT, 4, 4, spread),
  ...several("login", 8, 7, justNow),
];

const of = (name: string) => events.filter((e) => e.event === name);
const share = (part: number, whole: number, digits: number) => `${((100 * part) / whole).toFixed(digits)} %`;
const distinct = (values: string[]) => new Set(values).size;
const features = [...new Set(of("feature_used").map((e) => e.properties.feature ?? ""))]
  .map((name) => ({
    name,
    users: distinct(
      of("feature_used")
        .filter((e) => e.properties.feature === name)
        .map((e) => e.user_id),
    ),
  }))
  .sort((a, b) => b.users - a.users);

export const seed = {
  events,
  activeUsers: String(distinct(of("login").map((e) => e.session_id))),
  conversion: share(of("signup_completed").length, of("signup_started").length, 1),
  funnel: `${of("signup_completed").length} of ${of("signup_started").length} finish`,
  errorRate: share(of("error_occurred").length, events.length, 2),
  features,
  /** Events of one name by country, the most frequent first. */
  byCountry: (name: string) =>
    COUNTRIES.map((country) => ({ country, count: of(name).filter((e) => e.country_code === country).length })).sort(
      (a, b) => b.count - a.count,
    ),
  /** One more event of a new session, now. */
  oneMore: (id: string): SentEvent => ({
    event_id: id,
    event: "login",
    timestamp: new Date().toISOString(),
    session_id: id,
    user_id: id,
    country_code: "DE",
    source: "web",
    properties: {},
  }),
};
