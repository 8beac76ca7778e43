//! Labels and matchers against the dimensions that a metric has: what the shards group and filter by, and what is left to judge here.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matcher};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::limits::{FILTER_VALUES_MAX, FILTERS_MAX, GROUP_BY_MAX};
use tallymesh_protocol::question::answer::GroupKey;
use tallymesh_protocol::question::filter::Filter;

use super::super::envelope::Failure;
use super::super::expression::{Leaf, LeafMatcher};

/// Every event, in place of a metric's name.
const ALL: &str = "*";
const NAME: &str = "__name__";

/// A dimension, and the label that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimension {
    pub name: String,
    pub label: String,
}

/// What is asked of the shards for a leaf.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    pub metric: String,
    pub group_by: Vec<Dimension>,
    pub filters: Vec<Filter>,
    /// Which of `group_by` series show.
    shown: Vec<bool>,
    /// Conditions on `group_by` that no filter can say.
    conditions: Vec<(usize, Matcher)>,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Fetch(Fetch),
    /// Nothing can match, and why.
    Nothing(String),
}

/// A metric's dimensions with their labels: what a label may not have becomes `_`, and `properties.` goes.
pub fn dimensions(metric: &str, definitions: &DefinitionSet) -> Vec<Dimension> {
    let mut names = definitions.dimensions_of(metric);
    if metric == ALL {
        names.insert(0, "event".to_owned());
    }
    let mut out: Vec<Dimension> = Vec::with_capacity(names.len());
    for name in names {
        let mut label: String = name
            .strip_prefix("properties.")
            .unwrap_or(&name)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
            .collect();
        if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) || label.starts_with("__") {
            label.insert_str(0, "d_");
        }
        while out.iter().any(|other| other.label == label) {
            label.push('_');
        }
        out.push(Dimension { name, label });
    }
    out
}

/// # Errors
/// 422: a label in `__by__` that is not there, or more conditions or labels than a query may have.
pub fn resolve(leaf: &Leaf, metric: &str, dimensions: &[Dimension]) -> Result<Asked, Failure> {
    let known = || dimensions.iter().map(|d| d.label.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = leaf.by.iter().flatten().find(|label| !dimensions.iter().any(|d| is(d, label))) {
        return Err(Failure::execution(format!("`{metric}` has no label `{unknown}`, in `{}`; it has {}", leaf.text, known())));
    }
    let wanted = |d: &Dimension| match (&leaf.by, &leaf.needed) {
        (Some(by), _) => by.iter().any(|label| is(d, label)),
        (None, Some(needed)) => needed.contains(&d.label),
        (None, None) => true,
    };
    let mut fetch = Fetch {
        metric: metric.to_owned(),
        group_by: dimensions.iter().filter(|d| wanted(d)).cloned().collect(),
        filters: Vec::new(),
        shown: Vec::new(),
        conditions: Vec::new(),
        name: leaf.keeps_name.then(|| metric.to_owned()),
    };
    fetch.shown = vec![true; fetch.group_by.len()];
    for LeafMatcher { label, matcher } in &leaf.matchers {
        let Some(dimension) = dimensions.iter().find(|d| d.label == *label) else {
            // What is not there is empty.
            if matcher.is_match("") {
                continue;
            }
            return Ok(Asked::Nothing(format!(
                "`{metric}` has no label `{label}`, so `{}` matches nothing; it has {}",
                leaf.text,
                known()
            )));
        };
        match condition(matcher) {
            Condition::Always => {}
            Condition::Values { negated, values } => {
                if values.len() > FILTER_VALUES_MAX {
                    let detail = format!("more than {FILTER_VALUES_MAX} values of `{label}`, in `{}`", leaf.text);
                    return Err(Failure::execution(detail));
                }
                fetch.filters.push(Filter { dimension: dimension.name.clone(), negated, values });
            }
            Condition::Other => {
                let at = match fetch.group_by.iter().position(|d| d == dimension) {
                    Some(at) => at,
                    None => {
                        fetch.group_by.push(dimension.clone());
                        fetch.shown.push(false);
                        fetch.group_by.len() - 1
                    }
                };
                fetch.conditions.push((at, matcher.clone()));
            }
        }
    }
    if fetch.filters.len() > FILTERS_MAX {
        return Err(Failure::execution(format!("more than {FILTERS_MAX} matchers, in `{}`", leaf.text)));
    }
    if fetch.group_by.len() > GROUP_BY_MAX {
        return Err(Failure::execution(format!(
            "`{}` needs {} labels, and a query groups by at most {GROUP_BY_MAX}; put sum by (...) around it or name them in __by__",
            leaf.text,
            fetch.group_by.len()
        )));
    }
    Ok(Asked::Fetch(fetch))
}

fn is(dimension: &Dimension, label: &str) -> bool {
    dimension.label == label || dimension.name == label
}

impl Fetch {
    /// The labels of a group; `None` when a condition does not hold. What a dimension has no value for is no label.
    pub fn labels(&self, group: &[Option<String>]) -> Option<BTreeMap<String, String>> {
        let value = |at: usize| group.get(at).and_then(Option::as_deref).unwrap_or_default();
        if !self.conditions.iter().all(|(at, matcher)| matcher.is_match(value(*at))) {
            return None;
        }
        let name = self.name.iter().map(|name| (NAME.to_owned(), name.clone()));
        let shown =
            self.group_by.iter().enumerate().filter(|(at, _)| self.shown[*at]).map(|(at, d)| (d.label.clone(), value(at).to_owned()));
        Some(name.chain(shown.filter(|(_, value)| !value.is_empty())).collect())
    }
}

enum Condition {
    Always,
    Values { negated: bool, values: GroupKey },
    Other,
}

fn condition(matcher: &Matcher) -> Condition {
    let values = |negated, texts: Vec<String>| {
        let texts: BTreeSet<String> = texts.into_iter().collect();
        // Empty and not there are the same.
        let null = texts.contains("").then_some(None);
        Condition::Values { negated, values: texts.into_iter().map(Some).chain(null).collect() }
    };
    match &matcher.op {
        MatchOp::Equal => values(false, vec![matcher.value.clone()]),
        MatchOp::NotEqual => values(true, vec![matcher.value.clone()]),
        MatchOp::Re(_) | MatchOp::NotRe(_) => {
            let negated = matches!(matcher.op, MatchOp::NotRe(_));
            match (matcher.value.as_str(), negated) {
                (".*", false) => Condition::Always,
                (".+", _) => values(!negated, vec![String::new()]),
                (text, _) => alternatives(text).map_or(Condition::Other, |texts| values(negated, texts)),
            }
        }
    }
}

/// `a|b` and `(a|b)` as plain texts, if it is nothing more.
fn alternatives(regex: &str) -> Option<Vec<String>> {
    let inner = regex.strip_prefix('(').and_then(|r| r.strip_suffix(')')).unwrap_or(regex);
    let mut texts = vec![String::new()];
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let text = texts.last_mut()?;
        match c {
            // `\d` is no text, `\.` is.
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            '|' => texts.push(String::new()),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            c => text.push(c),
        }
    }
    Some(texts)
}
