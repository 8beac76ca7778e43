//! What there is: names of metrics and labels, values of labels, series.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use tallymesh_protocol::cardinality::OTHER;
use utoipa::ToSchema;

use super::answer::found;
use super::envelope::{Failure, Notes};
use super::evaluate::{LabelSet, Series};
use super::expression::{Leaf, selector};
use super::request::Form;
use super::series::dimensions;
use crate::http::App;
use crate::limits::{PROMQL_LOOKUP_METRICS_MAX, PROMQL_LOOKUP_MS, PROMQL_LOOKUPS_AT_ONCE, PROMQL_LOOKUPS_MAX};

const NAME: &str = "__name__";

/// What Prometheus tells of a metric.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Metadata {
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: &'static str,
}

/// Every metric that can be asked for, with what it counts.
async fn metrics(app: &App) -> BTreeMap<String, String> {
    let events = app.mesh.event_names().await.into_iter().filter(|name| name != OTHER);
    let mut all: BTreeMap<String, String> = events.map(|name| (name.clone(), format!("every `{name}` event"))).collect();
    // A definition beats the event of its name.
    all.extend(app.mesh.definitions().iter().map(|d| (d.definition.name.clone(), d.definition.description.clone())));
    all
}

pub async fn metadata(app: &App, form: &Form) -> Result<BTreeMap<String, Vec<Metadata>>, Failure> {
    let (only, limit) = (form.get("metric"), form.limit()?);
    let wanted = metrics(app).await.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name)).take(limit);
    Ok(wanted.map(|(name, help)| (name, vec![Metadata { kind: "counter", help, unit: "" }])).collect())
}

/// The selectors of a look-up; none is one that everything matches.
fn selectors(form: &Form) -> Result<Vec<Leaf>, Failure> {
    let texts: Vec<&str> = form.all("match[]").collect();
    if texts.len() > PROMQL_LOOKUPS_MAX {
        return Err(Failure::bad_data(format!("more than {PROMQL_LOOKUPS_MAX} of match[]")));
    }
    texts.into_iter().map(selector).collect()
}

/// Each metric that a selector means, with it.
async fn matched(app: &App, selectors: Vec<Leaf>) -> Result<Vec<(String, Leaf)>, Failure> {
    let known = metrics(app).await;
    let mut out = Vec::new();
    for leaf in selectors {
        let names: Vec<String> = match &leaf.metric {
            Some(name) => vec![name.clone()],
            None => known.keys().filter(|name| leaf.name_matchers.iter().all(|m| m.is_match(name))).cloned().collect(),
        };
        out.extend(names.into_iter().map(|name| (name.clone(), Leaf { metric: Some(name), ..leaf.clone() })));
        if out.len() > PROMQL_LOOKUP_METRICS_MAX {
            return Err(Failure::execution(format!("match[] means more than {PROMQL_LOOKUP_METRICS_MAX} metrics; name fewer")));
        }
    }
    Ok(out)
}

/// Names of the labels that the metrics have, with or without events.
pub async fn labels(app: &App, form: &Form) -> Result<Vec<String>, Failure> {
    let (limit, selectors) = (form.limit()?, selectors(form)?);
    let definitions = app.mesh.definitions();
    let names: Vec<String> = if selectors.is_empty() {
        // The default metrics have all the same.
        let defined = definitions.iter().map(|d| d.definition.name.clone());
        std::iter::once("*".to_owned()).chain(defined).collect()
    } else {
        matched(app, selectors).await?.into_iter().map(|(name, _)| name).collect()
    };
    let mut out: BTreeSet<String> = names.iter().flat_map(|name| dimensions(name, &definitions)).map(|d| d.label).collect();
    if !names.is_empty() {
        out.insert(NAME.to_owned());
    }
    Ok(out.into_iter().take(limit).collect())
}

pub async fn label_values(app: &App, label: &str, form: &Form, notes: &mut Notes) -> Result<Vec<String>, Failure> {
    let (limit, span_ms) = (form.limit()?, form.span(app.now_ms(), PROMQL_LOOKUP_MS)?);
    let selectors = selectors(form)?;
    let definitions = app.mesh.definitions();
    let targets = if label == NAME && selectors.is_empty() {
        return Ok(metrics(app).await.into_keys().take(limit).collect());
    } else if selectors.is_empty() {
        // Every event is in `*`; the definitions have labels beside its own.
        let defined = definitions.iter().map(|d| d.definition.name.clone());
        let names = std::iter::once("*".to_owned()).chain(defined);
        names
            .map(|name| selector("{__name__=\"*\"}").map(|leaf| (name.clone(), Leaf { metric: Some(name), ..leaf })))
            .collect::<Result<_, _>>()?
    } else {
        matched(app, selectors).await?
    };
    let mut leaves = Vec::new();
    for (metric, leaf) in targets {
        let is_there = dimensions(&metric, &definitions).iter().any(|d| d.label == label);
        if label == NAME || is_there {
            let by = if label == NAME { BTreeSet::new() } else { BTreeSet::from([label.to_owned()]) };
            leaves.push(Leaf { by: Some(by), ..leaf });
        }
    }
    if leaves.len() > PROMQL_LOOKUP_METRICS_MAX {
        return Err(Failure::execution(format!(
            "more than {PROMQL_LOOKUP_METRICS_MAX} metrics have the label `{label}`; name some in match[]"
        )));
    }
    let series = found_of_each(app, leaves, span_ms, notes).await?;
    let out: BTreeSet<String> = series.into_iter().filter_map(|mut s| s.labels.remove(label)).collect();
    Ok(out.into_iter().take(limit).collect())
}

pub async fn series(app: &App, form: &Form, notes: &mut Notes) -> Result<Vec<LabelSet>, Failure> {
    let (limit, span_ms) = (form.limit()?, form.span(app.now_ms(), PROMQL_LOOKUP_MS)?);
    let selectors = selectors(form)?;
    if selectors.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let leaves = matched(app, selectors).await?.into_iter().map(|(_, leaf)| leaf).collect();
    let series = found_of_each(app, leaves, span_ms, notes).await?;
    let out: BTreeSet<LabelSet> = series.into_iter().map(|s| s.labels).collect();
    Ok(out.into_iter().take(limit).collect())
}

/// The series of all of them.
async fn found_of_each(app: &App, leaves: Vec<Leaf>, span_ms: (i64, i64), notes: &mut Notes) -> Result<Vec<Series>, Failure> {
    let _own_place = app.clients.admit_query()?;
    let until = app.monotonic() + app.config.query.timeout.duration();
    // More than may run would only wait for each other.
    let at_once = PROMQL_LOOKUPS_AT_ONCE.min(app.config.query.concurrency).max(1);
    let questions: Vec<_> = leaves.into_iter().map(|leaf| found(app, leaf, span_ms, until)).collect();
    let mut out = Vec::new();
    for (series, own) in in_turns(questions, at_once).await? {
        out.extend(series);
        notes.warnings.extend(own.warnings);
        notes.infos.extend(own.infos);
    }
    Ok(out)
}

/// What all come to, in their order; up to `at_once` of them are under way. The first failure ends the others.
async fn in_turns<T>(questions: Vec<impl Future<Output = Result<T, Failure>>>, at_once: usize) -> Result<Vec<T>, Failure> {
    futures::stream::iter(questions).buffered(at_once).try_collect().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn look_ups_run_together_up_to_the_bound_and_keep_their_order() {
        let (together, running) = (Barrier::new(PROMQL_LOOKUPS_AT_ONCE), AtomicUsize::new(0));
        let one = async |i: usize| {
            assert!(running.fetch_add(1, Ordering::SeqCst) < PROMQL_LOOKUPS_AT_ONCE, "{i} is one too many");
            // None gets further before so many are here.
            together.wait().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Failure>(i)
        };
        let count = 3 * PROMQL_LOOKUPS_AT_ONCE;
        let questions = (0..count).map(one).collect();
        let got = tokio::time::timeout(Duration::from_secs(60), in_turns(questions, PROMQL_LOOKUPS_AT_ONCE)).await;
        assert_eq!(got.expect("they do not wait for each other").expect("no failure"), (0..count).collect::<Vec<_>>());
    }
}
