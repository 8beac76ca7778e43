//! `GET /v1/named/{query}`: ready-made questions. Each is put together from ordinary queries and comes with their receipt.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use tallymesh_protocol::definition::{CompiledDefinition, DefinitionSet, FieldRef};
use tallymesh_protocol::error::{ErrorCode, Problem, nearest};
use tallymesh_protocol::limits::{POINTS_PER_GROUP_MAX, ROWS_MAX};
use tallymesh_protocol::question::answer::{Answer, Receipt, Row, Rows};
use tallymesh_protocol::question::query::QueryParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{NamedParameters, NamedProblems};
use super::super::{App, AppState, HttpProblem};
use super::query::{json, query_pairs, run_at, together};

/// What a request may say beside the name of the query.
pub(in crate::http) const PARAMETERS: [&str; 8] = ["range", "from", "to", "tz", "timeout_ms", "token", "partial", "cache"];
/// Those of them that do not say which time is meant.
const NOT_TIME: [&str; 5] = ["tz", "timeout_ms", "token", "partial", "cache"];

/// How long a session counts as active after its last event.
const ACTIVE_RANGE: &str = "5m";
const FEATURE_EVENT: &str = "feature_used";
const FEATURE_DIMENSION: &str = "properties.feature";
const TOP_FEATURES: &str = "10";

const _: () = assert!(POINTS_PER_GROUP_MAX <= ROWS_MAX);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_named))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
enum NamedQuery {
    ActiveUsers,
    SignupFunnel,
    TopFeatures,
    ErrorRate,
}

impl NamedQuery {
    const ALL: [Self; 4] = [Self::ActiveUsers, Self::SignupFunnel, Self::TopFeatures, Self::ErrorRate];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ActiveUsers => "active_users",
            Self::SignupFunnel => "signup_funnel",
            Self::TopFeatures => "top_features",
            Self::ErrorRate => "error_rate",
        }
    }

    /// The range of a request that names none.
    const fn default_range(self) -> &'static str {
        match self {
            Self::ActiveUsers | Self::ErrorRate => "1h",
            Self::SignupFunnel | Self::TopFeatures => "24h",
        }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|q| q.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            let shown: String = text.chars().take(200).collect();
            Problem::new(ErrorCode::NotFound, format!("there is no ready-made query `{shown}`; there are {}", names.join(", ")))
                .field("query")
                .did_you_mean(nearest(&shown, names))
        })
    }
}

#[derive(Serialize, ToSchema)]
struct NamedAnswer {
    #[schema(value_type = NamedQuery)]
    query: &'static str,
    /// The figure of this moment, of queries that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    now: Option<Now>,
    #[schema(value_type = Vec<Row>)]
    data: Rows,
    receipt: Receipt,
}

#[derive(Serialize, ToSchema)]
struct Now {
    #[serde(flatten)]
    #[schema(value_type = Row)]
    row: Option<Row>,
    receipt: Receipt,
}

/// Ready-made queries
///
/// `active_users`: distinct sessions of the last 5 minutes, and of each minute of the range. `signup_funnel`: started, completed and their ratio by hour.
/// `top_features`: the ten features with the most users. `error_rate`: errors and all events by minute, and their ratio.
#[utoipa::path(
    get, path = "/v1/named/{query}", tag = "query", params(("query" = NamedQuery, Path, description = "Which one."), NamedParameters),
    responses((status = 200, description = "The answer.", body = NamedAnswer), NamedProblems),
)]
async fn get_named(State(app): State<AppState>, Path(name): Path<String>, uri: Uri) -> Result<Response, HttpProblem> {
    let query = NamedQuery::parse(&name)?;
    let asked = Asked { pairs: asked_pairs(query, query_pairs(&uri)?)?, app: &app, now_ms: app.now_ms(), all_rows: ROWS_MAX.to_string() };
    let answer = match query {
        NamedQuery::ActiveUsers => active_users(&asked).await,
        NamedQuery::TopFeatures => top_features(&asked).await,
        NamedQuery::SignupFunnel => ratio(&asked, &SIGNUP_FUNNEL).await,
        NamedQuery::ErrorRate => ratio(&asked, &ERROR_RATE).await,
    };
    let (now, answer) = answer.map_err(about_range)?;
    Ok(json(&NamedAnswer { query: query.as_str(), now, data: answer.data, receipt: answer.receipt }))
}

fn asked_pairs(query: NamedQuery, mut pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, Problem> {
    pairs.retain(|(_, value)| !value.is_empty());
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
        let detail = format!("`{}` has no parameter `{name}`; there are {}", query.as_str(), PARAMETERS.join(", "));
        return Err(Problem::new(ErrorCode::BadParameter, detail).field(name.as_str()).did_you_mean(nearest(name, PARAMETERS)));
    }
    if pairs.iter().all(|(name, _)| NOT_TIME.contains(&name.as_str())) {
        pairs.push(("range".to_owned(), query.default_range().to_owned()));
    }
    Ok(pairs)
}

/// The step is not the client's to choose here; the range is.
fn about_range(mut problem: Problem) -> Problem {
    if problem.field.as_deref() == Some("step") {
        problem.field = Some("range".to_owned());
        problem.suggested_step = None;
        problem.detail.push_str(". This query has a step of its own: ask for a shorter `range`");
    }
    problem
}

/// One request: what it says, and the moment it came.
struct Asked<'a> {
    app: &'a App,
    pairs: Vec<(String, String)>,
    now_ms: i64,
    /// A limit that leaves no step out.
    all_rows: String,
}

impl Asked<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    async fn run<'p>(&'p self, fixed: &[(&'p str, &'p str)]) -> Result<Answer, Problem> {
        self.ask(fixed.iter().copied().chain(self.pairs())).await
    }

    /// The last minutes, whatever range is asked.
    async fn run_active(&self) -> Result<Answer, Problem> {
        let fixed = [("metric", "*"), ("agg", "sessions"), ("range", ACTIVE_RANGE)];
        self.ask(fixed.into_iter().chain(self.pairs().filter(|(name, _)| NOT_TIME.contains(name)))).await
    }

    async fn ask<'p>(&self, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Result<Answer, Problem> {
        run_at(self.app, &QueryParams::from_pairs(pairs)?, self.now_ms).await.map(|(_, answer)| answer)
    }
}

type Found = (Option<Now>, Answer);

/// Distinct sessions of the last minutes, and of each minute of the range.
async fn active_users(asked: &Asked<'_>) -> Result<Found, Problem> {
    let by_minute =
        asked.run(&[("metric", "*"), ("agg", "sessions"), ("step", "1m"), ("fill", "zero"), ("limit", &asked.all_rows)]).await?;
    let now = asked.run_active().await?;
    Ok((Some(Now { row: now.data.first().cloned(), receipt: now.receipt }), by_minute))
}

/// Counts of two kinds of events by step, and one divided by the other.
struct Ratio {
    step: &'static str,
    part: Count,
    whole: Count,
    /// Null where there is nothing to divide by.
    label: &'static str,
}

struct Count {
    label: &'static str,
    /// Empty for every event.
    filter: &'static str,
}

impl Ratio {
    /// `*` and a filter, so that an event not seen yet is a count of 0 and not an unknown metric.
    fn fixed<'p>(&'p self, count: &Count, asked: &'p Asked<'_>) -> [(&'p str, &'p str); 5] {
        [("metric", "*"), ("step", self.step), ("fill", "zero"), ("filter", count.filter), ("limit", &asked.all_rows)]
    }
}

const SIGNUP_FUNNEL: Ratio = Ratio {
    step: "1h",
    part: Count { label: "completed", filter: "event:signup_completed" },
    whole: Count { label: "started", filter: "event:signup_started" },
    label: "conversion",
};

const ERROR_RATE: Ratio = Ratio {
    step: "1m",
    part: Count { label: "errors", filter: "event:error_occurred" },
    whole: Count { label: "events", filter: "" },
    label: "error_rate",
};

async fn ratio(asked: &Asked<'_>, ratio: &Ratio) -> Result<Found, Problem> {
    let params = QueryParams::from_pairs(asked.pairs().chain(ratio.fixed(&ratio.whole, asked)))?;
    let kind = format!("named {}", ratio.label);
    let answer = together(asked.app, &kind, &params, asked.now_ms, evaluate_ratio(asked, ratio)).await?;
    Ok((None, answer))
}

async fn evaluate_ratio(asked: &Asked<'_>, ratio: &Ratio) -> Result<Answer, Problem> {
    let uncached = || asked.pairs().filter(|(name, _)| *name != "cache");
    let count = async |count: &Count| asked.ask(uncached().chain(ratio.fixed(count, asked))).await;
    // The part first: what arrives in between can then only be in the whole.
    let part = count(&ratio.part).await?;
    let mut whole = count(&ratio.whole).await?;
    let counted = |row: &Row| row.values.get("count").copied().flatten();
    let mut parts: BTreeMap<Option<String>, Option<f64>> = part.data.iter().map(|row| (row.time.clone(), counted(row))).collect();
    for row in whole.data.to_mut() {
        let (all, some) = (counted(row), parts.remove(&row.time).flatten());
        let rate = some.zip(all).filter(|(_, all)| *all > 0.0).map(|(some, all)| some / all);
        row.values = [(ratio.part.label, some), (ratio.whole.label, all), (ratio.label, rate)]
            .into_iter()
            .map(|(label, value)| (label.to_owned(), value))
            .collect();
    }
    whole.receipt = one_receipt(part.receipt, whole.receipt);
    Ok(whole)
}

/// The receipt of two answers of one range, read one after the other.
fn one_receipt(first: Receipt, second: Receipt) -> Receipt {
    let mut error = first.error;
    error.extend(second.error);
    Receipt {
        complete: first.complete && second.complete,
        shards: if first.shards.answered < second.shards.answered { first.shards } else { second.shards },
        // Watermarks only rise.
        watermark: first.watermark,
        freshness_ms: (first.freshness_ms + second.took_ms).max(second.freshness_ms),
        error,
        other_share: first.other_share.max(second.other_share),
        took_ms: first.took_ms + second.took_ms,
        ..second
    }
}

/// Features by how many users used them; events that name no feature are left out.
async fn top_features(asked: &Asked<'_>) -> Result<Found, Problem> {
    let definitions = asked.app.mesh.definitions();
    let Some(by_feature) = definitions.of_event(FEATURE_EVENT).find(|d| counts_features(d)) else {
        return Err(no_feature_metric(&definitions));
    };
    let mut answer = asked
        .run(&[
            ("metric", &by_feature.definition.name),
            ("agg", "users,count"),
            ("group_by", FEATURE_DIMENSION),
            ("filter", "!properties.feature:"),
            ("order", "-value"),
            ("limit", TOP_FEATURES),
        ])
        .await?;
    for row in answer.data.to_mut() {
        // However the definition spells the dimension.
        row.group = row.group.take().map(|group| group.into_values().map(|feature| ("feature".to_owned(), feature)).collect());
    }
    Ok((None, answer))
}

/// Whether it counts every `feature_used`, nothing else, and each by its feature.
fn counts_features(definition: &CompiledDefinition) -> bool {
    definition.definition.event.iter().all(|e| e == FEATURE_EVENT)
        && definition.filters.is_empty()
        && definition.dimensions.contains(&FieldRef::parse(FEATURE_DIMENSION))
}

fn no_feature_metric(definitions: &DefinitionSet) -> Problem {
    let free = ["feature_usage", "features_used", "top_features"].into_iter().find(|name| definitions.get(name).is_none());
    let name = free.unwrap_or("feature_used_by_feature");
    let detail = format!(
        "no metric counts `{FEATURE_EVENT}` by `{FEATURE_DIMENSION}`. Add this to the configuration file before a cluster is founded (a data \
         directory keeps the metrics that it was founded with):\n\n\
         [[metrics]]\nname = \"{name}\"\nevent = [\"{FEATURE_EVENT}\"]\ndimensions = [\"feature\"]\n"
    );
    Problem::new(ErrorCode::UnknownDimension, detail).field("query")
}

#[cfg(test)]
mod tests {
    use tallymesh_protocol::question::answer::ShardsAnswered;

    use super::*;

    fn receipt(complete: bool, answered: u32, watermark: &str, freshness_ms: u64, took_ms: u64) -> Receipt {
        Receipt {
            complete,
            from: "2026-01-01T00:00:00Z".to_owned(),
            to: "2026-01-02T00:00:00Z".to_owned(),
            shards: ShardsAnswered { asked: 4, answered },
            watermark: Some(watermark.to_owned()),
            freshness_ms,
            error: BTreeMap::new(),
            sampled: 1.0,
            other_share: 0.0,
            sources: vec!["hot".to_owned()],
            grain: "1m".to_owned(),
            cache_age_ms: None,
            took_ms,
        }
    }

    #[test]
    fn one_receipt_promises_no_more_than_either() {
        let (poor, good) = (receipt(false, 3, "2026-01-01T01:00:00Z", 5, 7), receipt(true, 4, "2026-01-01T02:00:00Z", 1, 10));
        assert_eq!(one_receipt(poor, good), receipt(false, 3, "2026-01-01T01:00:00Z", 15, 17));
        let (good, poor) = (receipt(true, 4, "2026-01-01T01:00:00Z", 1, 2), receipt(false, 3, "2026-01-01T02:00:00Z", 90, 3));
        assert_eq!(one_receipt(good, poor), receipt(false, 3, "2026-01-01T01:00:00Z", 90, 5));
    }
}
