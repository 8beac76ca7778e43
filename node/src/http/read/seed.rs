//! Addresses and answers that dashboards of the first system know: `/metrics?name=` and `/api/metrics/daily`.
//!
//! Their bodies are plain lists, so the receipt and the cursor travel in headers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Map, Value};
use tallymesh_protocol::definition::FieldRef;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::limits::ROWS_MAX;
use tallymesh_protocol::question::answer::{Answer, Row};
use tallymesh_protocol::question::filter::Filter;
use tallymesh_protocol::question::query::{PreparedQuery, QueryParams};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{DailyParameters, QueryProblems};
use super::super::{App, AppState, HttpProblem};
use super::query::{check_names, json, once, put_into_headers, query_pairs, run, run_at};

pub(in crate::http) const NUMBERS_PARAMETERS: [&str; 14] =
    ["name", "agg", "range", "from", "to", "group_by", "filter", "order", "limit", "cursor", "tz", "timeout_ms", "token", "cache"];
const DAILY_PARAMETERS: [&str; 6] = ["source", "start", "end", "limit", "cursor", "cache"];
/// Name of the number in a row.
const VALUE: &str = "value";

const DAILY_SOURCE: &str = "web";
const DAILY_START: Date = Date::constant(2024, 1, 1);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(daily))
}

/// Says a problem in the names that this address has.
fn renamed(mut problem: Problem, names: &[(&str, &str)]) -> Problem {
    if let Some((_, here)) = names.iter().find(|(there, _)| problem.field.as_deref() == Some(there)) {
        problem.field = Some((*here).to_owned());
    }
    problem
}

fn set_default(pairs: &mut Vec<(String, String)>, name: &str, value: &str) {
    if !pairs.iter().any(|(n, v)| n == name && !v.is_empty()) {
        pairs.push((name.to_owned(), value.to_owned()));
    }
}

/// `/metrics` with a `name`: one number, or one of each group, the largest first.
///
/// # Errors
/// As `/v1/query`.
pub(in crate::http) async fn numbers(app: &App, mut pairs: Vec<(String, String)>) -> Result<Response, Problem> {
    check_names(&pairs, NUMBERS_PARAMETERS)?;
    for (name, _) in &mut pairs {
        if name == "name" {
            "metric".clone_into(name);
        }
    }
    set_default(&mut pairs, "order", "-value");
    set_default(&mut pairs, "limit", &ROWS_MAX.to_string());
    let (prepared, answer) = run_singular_too(app, &pairs).await.map_err(|p| renamed(p, &[("metric", "name")]))?;
    let [aggregate] = prepared.query.aggregates.as_slice() else {
        return Err(Problem::new(ErrorCode::BadParameter, "a row has one value here; /v1/query takes several aggregates").field("agg"));
    };
    if prepared.query.group_by.iter().any(|asked| asked == VALUE) {
        return Err(Problem::new(ErrorCode::BadParameter, "`value` is the number here; /v1/query can group by it").field("group_by"));
    }
    let label = aggregate.label();
    let rows: Vec<Value> = answer.data.iter().map(|row| number_row(&prepared, label, row)).collect();
    Ok(list(&rows, answer))
}

/// An event name beats the singular of it: both may be there.
async fn run_singular_too(app: &App, pairs: &[(String, String)]) -> Result<(Arc<PreparedQuery>, Answer), Problem> {
    let now_ms = app.now_ms();
    let ask = async |metric: Option<&str>| {
        let value = |(name, value): &(String, String)| {
            let value = metric.filter(|_| name == "metric").unwrap_or(value);
            (name.clone(), value.to_owned())
        };
        run_at(app, &QueryParams::from_pairs(pairs.iter().map(value))?, now_ms).await
    };
    let unknown = match ask(None).await {
        Err(problem) if problem.code == ErrorCode::UnknownMetric => problem,
        other => return other,
    };
    let plural = pairs.iter().find(|(name, _)| name == "metric").map_or("", |(_, value)| value);
    for singular in singulars(plural) {
        match ask(Some(&singular)).await {
            Err(problem) if problem.code == ErrorCode::UnknownMetric => {}
            other => return other,
        }
    }
    Err(unknown)
}

/// What a name may be the plural of, the likeliest first: `page_views`, `searches`, `queries`.
fn singulars(plural: &str) -> impl Iterator<Item = String> {
    let without = |end: &str, instead: &str| plural.strip_suffix(end).filter(|s| !s.is_empty()).map(|s| format!("{s}{instead}"));
    [without("ies", "y"), without("s", ""), without("es", "")].into_iter().flatten()
}

/// The dimensions as they were asked for, whatever the metric calls them.
fn number_row(prepared: &PreparedQuery, label: &str, row: &Row) -> Value {
    let mut fields = Map::new();
    for asked in &prepared.query.group_by {
        let names = prepared.group_names();
        let exact = names.iter().find(|n| *n == asked);
        let name = exact.or_else(|| names.iter().find(|n| FieldRef::parse(n) == FieldRef::parse(asked)));
        let value = name.and_then(|n| row.group.as_ref()?.get(n)?.clone());
        fields.insert(asked.clone(), value.map_or(Value::Null, Value::String));
    }
    let number = serde_json::to_value(row).ok().and_then(|mut row| row.get_mut("values")?.get_mut(label).map(Value::take));
    fields.insert(VALUE.to_owned(), number.unwrap_or_default());
    Value::Object(fields)
}

fn list(rows: &impl Serialize, answer: Answer) -> Response {
    let mut response = json(rows);
    put_into_headers(&mut response, &answer.receipt, answer.cursor);
    response
}

#[derive(Serialize, ToSchema)]
struct DailyRow {
    #[schema(format = Date)]
    date: String,
    event_name: String,
    users: u64,
    events: u64,
}

/// Users and events by day
///
/// Of one source, by day (UTC) and event name; days are inclusive.
#[utoipa::path(
    get, path = "/api/metrics/daily", operation_id = "get_daily", tag = "first system", params(DailyParameters),
    responses((status = 200, description = "By day, then event name.", body = Vec<DailyRow>), QueryProblems),
)]
async fn daily(State(app): State<AppState>, uri: Uri) -> Result<Response, HttpProblem> {
    let mut pairs = query_pairs(&uri)?;
    pairs.retain(|(_, value)| !value.is_empty());
    check_names(&pairs, DAILY_PARAMETERS)?;
    let once = |name: &str| once(&pairs, name);
    let today = Timestamp::from_millisecond(app.now_ms())
        .map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let start = once("start")?.map_or(Ok(DAILY_START), |text| date("start", text))?;
    let end = once("end")?.map_or(Ok(today), |text| date("end", text))?;
    if start > end {
        return Err(Problem::new(ErrorCode::BadRange, format!("`start` ({start}) is after `end` ({end})")).field("start").into());
    }
    let after = end.tomorrow().map_err(|e| Problem::new(ErrorCode::BadRange, e.to_string()).field("end"))?;
    let source = once("source")?.unwrap_or(DAILY_SOURCE).to_owned();
    let filter = Filter { dimension: "source".to_owned(), negated: false, values: vec![Some(source)] };
    let params = [
        ("metric", "*".to_owned()),
        ("agg", "count,users".to_owned()),
        ("group_by", "event".to_owned()),
        ("step", "1d".to_owned()),
        ("filter", filter.to_string()),
        ("from", start.to_string()),
        ("to", after.to_string()),
        ("limit", once("limit")?.map_or_else(|| ROWS_MAX.to_string(), str::to_owned)),
        ("cursor", once("cursor")?.unwrap_or_default().to_owned()),
        ("cache", once("cache")?.unwrap_or_default().to_owned()),
    ];
    let names = [("from", "start"), ("to", "end"), ("step", "start")];
    let (_, answer) = run(&app, &QueryParams::from_pairs(params)?).await.map_err(|p| renamed(p, &names))?;
    let rows: Vec<DailyRow> = answer.data.iter().map(daily_row).collect();
    Ok(list(&rows, answer))
}

fn date(field: &str, text: &str) -> Result<Date, Problem> {
    // Ten characters: the parser takes a date with a time too.
    text.parse()
        .ok()
        .filter(|_| text.len() == 10)
        .ok_or_else(|| Problem::new(ErrorCode::BadRange, format!("`{field}={text}` is no date; write it as 2024-01-31")).field(field))
}

fn daily_row(row: &Row) -> DailyRow {
    let number = |label: &str| row.values.get(label).copied().flatten().unwrap_or_default().round() as u64;
    let event = row.group.as_ref().and_then(|g| g.get("event")?.clone());
    DailyRow {
        date: row.time.as_deref().and_then(|t| t.get(..10)).unwrap_or_default().to_owned(),
        event_name: event.unwrap_or_default(),
        users: number("users"),
        events: number("count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_taken_back_the_usual_ways() {
        let of = |plural| singulars(plural).collect::<Vec<_>>();
        assert_eq!(of("page_views"), ["page_view"]);
        assert_eq!(of("purchases"), ["purchase", "purchas"]);
        assert_eq!(of("searches")[1], "search");
        assert_eq!(of("queries")[0], "query");
        assert!(of("s").is_empty() && of("page_view").is_empty() && of("").is_empty());
    }

    #[test]
    fn a_date_is_a_date_alone() {
        assert_eq!(date("start", "2024-02-29").expect("leap year"), Date::constant(2024, 2, 29));
        for bad in ["2023-02-29", "2024-01-01T10:00:00", "2024-1-1", "20240101", "today", ""] {
            assert_eq!(date("end", bad).expect_err(bad).field.as_deref(), Some("end"));
        }
    }
}
