//! A metric query, understood: every parameter typed and within its limits. Names of dimensions are resolved later, by [`super::Resolved`].

use xxhash_rust::xxh3::xxh3_64;

use super::moment::{TimeRange, Zone};
use super::params::{FORMAT, QueryParams, too_many_filters};
use super::split::{split_list, unescape};
use super::{Aggregate, Step, StepWidth, cursor};
use crate::error::{ErrorCode, Problem, nearest};
use crate::limits::{AGGREGATES_MAX, FILTER_VALUES_MAX, FILTERS_MAX, GROUP_BY_MAX, QUERY_TIMEOUT_MS_MAX, ROWS_DEFAULT, ROWS_MAX};
use crate::question::filter::Filter;
use crate::question::merge::PagePosition;
use crate::question::token::WriteToken;

/// `order=`. Ties are broken by time, then group, so that equal questions get equal answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Time,
    TimeDescending,
    /// By the first aggregate; null last.
    Value,
    ValueDescending,
}

/// `partial=`: what to do when a shard does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partial {
    #[default]
    Fail,
    Allow,
}

/// `fill=`: steps without events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    #[default]
    None,
    /// Counts and sums are 0; what is a value of some event stays null.
    Zero,
    Null,
}

/// `compare=`: the same question, earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The range of the same length just before.
    Previous,
    /// A day earlier by the calendar of `tz`.
    Day,
    /// Seven days earlier by the calendar of `tz`.
    Week,
}

/// `format=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseFormat {
    #[default]
    Json,
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetricQuery {
    pub metric: String,
    /// At least one, none twice.
    pub aggregates: Vec<Aggregate>,
    pub range: TimeRange,
    pub step: Step,
    /// As asked, none twice.
    pub group_by: Vec<String>,
    pub filters: Vec<Filter>,
    pub order: Order,
    pub limit: usize,
    pub zone: Zone,
    pub partial: Partial,
    pub fill: Fill,
    pub compare: Option<Compare>,
    pub timeout_ms: Option<u64>,
    pub format: ResponseFormat,
    /// Read-your-writes token of an ack.
    pub token: Option<WriteToken>,
    /// An answer given before will do, as long as it says how old it is.
    pub may_be_cached: bool,
    /// Where the last page ended; `range` is then the one that the first page was read for.
    pub after: Option<PagePosition>,
    /// The same for every page of one query.
    pub fingerprint: u64,
}

impl MetricQuery {
    /// `now_ms` is what `range` and a missing `to` end at.
    ///
    /// # Errors
    /// 422 naming the parameter, its limit and what may have been meant.
    pub fn parse(params: &QueryParams, now_ms: i64) -> Result<Self, Problem> {
        let metric = params
            .get("metric")
            .ok_or_else(|| bad("metric", "`metric` is missing: give an event name, a defined metric or `*` for every event"))?
            .to_owned();
        let zone = params.get("tz").map_or_else(|| Ok(Zone::utc()), Zone::parse)?;
        let fingerprint = xxh3_64(params.canonical().as_bytes());
        let mut range = TimeRange::parse(params, now_ms, &zone)?;
        let mut after = None;
        if let Some(text) = params.get("cursor") {
            let (first, position) = cursor::decode(fingerprint, text)?;
            (range, after) = (first, Some(position));
        }
        Ok(Self {
            metric,
            aggregates: aggregates(params.get("agg").unwrap_or("count"))?,
            range,
            step: step(params.get("step").unwrap_or("none"))?,
            group_by: group_by(params.get("group_by"))?,
            filters: filters(params.filters())?,
            order: choice(
                params,
                "order",
                &[("time", Order::Time), ("-time", Order::TimeDescending), ("value", Order::Value), ("-value", Order::ValueDescending)],
            )?
            .unwrap_or_default(),
            limit: number(params, "limit", ROWS_MAX as u64)?.map_or(ROWS_DEFAULT, |n| n as usize),
            partial: choice(params, "partial", &[("fail", Partial::Fail), ("allow", Partial::Allow)])?.unwrap_or_default(),
            fill: choice(params, "fill", &[("none", Fill::None), ("zero", Fill::Zero), ("null", Fill::Null)])?.unwrap_or_default(),
            compare: choice(params, "compare", &[("previous", Compare::Previous), ("day", Compare::Day), ("week", Compare::Week)])?,
            timeout_ms: number(params, "timeout_ms", QUERY_TIMEOUT_MS_MAX)?,
            format: choice(
                params,
                FORMAT,
                &[("json", ResponseFormat::Json), ("csv", ResponseFormat::Csv), ("arrow", ResponseFormat::Arrow)],
            )?
            .unwrap_or_default(),
            token: params.get("token").map(WriteToken::decode).transpose()?,
            may_be_cached: choice(params, "cache", &[("off", false), ("on", true)])?.unwrap_or_default(),
            after,
            fingerprint,
            zone,
        })
    }
}

fn bad(field: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadParameter, detail).field(field)
}

fn choice<T: Copy>(params: &QueryParams, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
    let Some(text) = params.get(name) else { return Ok(None) };
    match choices.iter().find(|(c, _)| *c == text) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<&str> = choices.iter().map(|(c, _)| *c).collect();
            Err(bad(name, format!("`{name}={text}` must be one of {}", names.join(", "))).did_you_mean(nearest(text, names)))
        }
    }
}

/// A whole number in `1..=max`.
fn number(params: &QueryParams, name: &str, max: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = params.get(name) else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(n) if (1..=max).contains(&n) => Ok(Some(n)),
        _ => Err(bad(name, format!("`{name}={text}` must be a whole number from 1 to {max}")).limit(max)),
    }
}

fn step(text: &str) -> Result<Step, Problem> {
    let names = || StepWidth::ALL.iter().map(|w| w.as_str()).chain(["auto", "none"]);
    match text {
        "none" => Ok(Step::None),
        "auto" => Ok(Step::Auto),
        text => StepWidth::ALL.into_iter().find(|w| w.as_str() == text).map(Step::Every).ok_or_else(|| {
            let list = names().collect::<Vec<_>>().join(", ");
            bad("step", format!("`step={text}` must be one of {list}")).did_you_mean(nearest(text, names()))
        }),
    }
}

fn aggregates(text: &str) -> Result<Vec<Aggregate>, Problem> {
    let mut out: Vec<Aggregate> = Vec::new();
    for item in split_list(text) {
        let aggregate = aggregate(item.trim())?;
        if !out.contains(&aggregate) {
            out.push(aggregate);
        }
        if out.len() > AGGREGATES_MAX {
            return Err(bad("agg", format!("more than {AGGREGATES_MAX} aggregates")).limit(AGGREGATES_MAX as u64));
        }
    }
    Ok(out)
}

fn aggregate(text: &str) -> Result<Aggregate, Problem> {
    Ok(match text {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "avg" => Aggregate::Avg,
        "last" => Aggregate::Last,
        "users" => Aggregate::Users,
        "sessions" => Aggregate::Sessions,
        other => match other.strip_prefix('p').and_then(percent) {
            Some(percent) => Aggregate::Quantile { q: percent / 100.0, label: other.to_owned() },
            None => {
                const NAMES: [&str; 12] = ["count", "sum", "min", "max", "avg", "last", "users", "sessions", "p50", "p90", "p95", "p99"];
                let alias = match other {
                    "average" | "mean" => Some("avg".to_owned()),
                    "median" => Some("p50".to_owned()),
                    "uniques" | "unique_users" => Some("users".to_owned()),
                    _ => nearest(other, NAMES),
                };
                let detail = format!("`{other}` is no aggregate; there are {} and any pNN.N up to p100", NAMES.join(", "));
                return Err(bad("agg", detail).did_you_mean(alias));
            }
        },
    })
}

/// `95`, `99.9`: plain digits, 0 to 100.
fn percent(text: &str) -> Option<f64> {
    let plain = text.len() <= 12 && text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|p| plain && !text.ends_with('.') && (0.0..=100.0).contains(p))
}

fn group_by(text: Option<&str>) -> Result<Vec<String>, Problem> {
    let mut out: Vec<String> = Vec::new();
    for item in text.map(split_list).unwrap_or_default() {
        let name = unescape(item.trim());
        if name.is_empty() {
            return Err(bad("group_by", "an empty dimension in `group_by`; write `group_by=country_code,device_type`"));
        }
        if !out.contains(&name) {
            out.push(name);
        }
        if out.len() > GROUP_BY_MAX {
            return Err(bad("group_by", format!("more than {GROUP_BY_MAX} dimensions")).limit(GROUP_BY_MAX as u64));
        }
    }
    Ok(out)
}

fn filters(texts: &[String]) -> Result<Vec<Filter>, Problem> {
    let mut out = Vec::new();
    for text in texts.iter().flat_map(|t| split_list(t)) {
        let filter = Filter::parse(text).map_err(|e| bad("filter", format!("`{text}`: {e}")))?;
        if filter.values.len() > FILTER_VALUES_MAX {
            return Err(
                bad("filter", format!("more than {FILTER_VALUES_MAX} values of `{}`", filter.dimension)).limit(FILTER_VALUES_MAX as u64)
            );
        }
        if out.len() == FILTERS_MAX {
            return Err(too_many_filters());
        }
        out.push(filter);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
