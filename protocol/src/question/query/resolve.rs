//! Names of a query against what is defined: which keys are read, and where its dimensions stand in them.

use super::{DimensionFilter, DimensionRef, MetricQuery, MetricSelector};
use crate::definition::{DefinitionSet, FieldRef};
use crate::error::{ErrorCode, Problem, nearest};

/// The parts of a query that depend on definitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub selector: MetricSelector,
    pub group_by: Vec<DimensionRef>,
    /// Names of `group_by` as answers spell them: `country` is asked, `country_code` is answered.
    pub group_names: Vec<String>,
    pub filters: Vec<DimensionFilter>,
}

impl Resolved {
    /// A definition beats the event of its name. Whether an event name exists only the shards know.
    ///
    /// # Errors
    /// 422 for a dimension that the metric does not have, with the nearest that it has.
    pub fn of(query: &MetricQuery, definitions: &DefinitionSet) -> Result<Self, Problem> {
        let selector = match query.metric.as_str() {
            "*" => MetricSelector::All,
            name if definitions.get(name).is_some() => MetricSelector::Defined(name.to_owned()),
            name => MetricSelector::Event(name.to_owned()),
        };
        let dimensions = Dimensions {
            metric: &query.metric,
            names: definitions.dimensions_of(&query.metric),
            has_event: !matches!(selector, MetricSelector::Defined(_)),
        };
        let mut resolved = Self { selector, group_by: Vec::new(), group_names: Vec::new(), filters: Vec::new() };
        for asked in &query.group_by {
            let (reference, name) = dimensions.find("group_by", asked)?;
            if !resolved.group_by.contains(&reference) {
                resolved.group_by.push(reference);
                resolved.group_names.push(name.to_owned());
            }
        }
        for filter in &query.filters {
            let (dimension, _) = dimensions.find("filter", &filter.dimension)?;
            resolved.filters.push(DimensionFilter { dimension, negated: filter.negated, values: filter.values.clone() });
        }
        Ok(resolved)
    }
}

struct Dimensions<'a> {
    metric: &'a str,
    names: Vec<String>,
    has_event: bool,
}

impl Dimensions<'_> {
    /// Other spellings of the dimensions there are, as people are likely to slip in them.
    fn aliases(&self) -> impl Iterator<Item = &str> {
        let is_known = |alias: &str| self.names.iter().any(|n| FieldRef::parse(n) == FieldRef::parse(alias));
        ["country", "device"].into_iter().filter(move |alias| is_known(alias))
    }

    /// By the name itself, else by what it refers to (`country`, `properties.x`).
    fn find(&self, field: &str, asked: &str) -> Result<(DimensionRef, &str), Problem> {
        let reference = FieldRef::parse(asked);
        let exact = self.names.iter().position(|n| n == asked);
        if let Some(i) = exact.or_else(|| self.names.iter().position(|n| FieldRef::parse(n) == reference)) {
            return Ok((DimensionRef::Index(i), &self.names[i]));
        }
        if reference == FieldRef::Event && self.has_event {
            return Ok((DimensionRef::EventName, "event"));
        }
        let known: Vec<&str> = self.names.iter().map(String::as_str).chain(self.has_event.then_some("event")).collect();
        let list = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        let hint = if self.has_event { "; define a metric to count by other properties" } else { "" };
        Err(Problem::new(ErrorCode::UnknownDimension, format!("`{}` has no dimension `{asked}`; {list}{hint}", self.metric))
            .field(field)
            .did_you_mean(nearest(asked, known.iter().copied().chain(self.aliases()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::MetricDefinition;
    use crate::question::query::QueryParams;

    fn resolve(pairs: &[(&str, &str)]) -> Result<Resolved, Problem> {
        let definition = MetricDefinition {
            name: "departures".to_owned(),
            event: vec!["flight_departed".to_owned()],
            dimensions: vec!["carrier".to_owned(), "properties.origin".to_owned(), "country".to_owned()],
            value: "properties.air_time_min".to_owned(),
            filter: Vec::new(),
            description: String::new(),
        };
        let set = DefinitionSet::compile(1, vec![definition]).expect("valid");
        let params = QueryParams::from_pairs([("range", "1h")].iter().chain(pairs).copied()).expect("names");
        Resolved::of(&MetricQuery::parse(&params, 1_767_268_800_000).expect("valid"), &set)
    }

    #[test]
    fn default_metrics_have_three_dimensions_and_the_event_name() {
        let resolved =
            resolve(&[("metric", "*"), ("group_by", "event,country,country_code,device"), ("filter", "!source:web|")]).expect("known");
        assert_eq!(resolved.selector, MetricSelector::All);
        assert_eq!(resolved.group_by, [DimensionRef::EventName, DimensionRef::Index(2), DimensionRef::Index(1)]);
        assert_eq!(resolved.group_names, ["event", "country_code", "device_type"]);
        let filter = DimensionFilter { dimension: DimensionRef::Index(0), negated: true, values: vec![Some("web".to_owned()), None] };
        assert_eq!(resolved.filters, [filter]);
    }

    #[test]
    fn defined_metrics_have_their_own_and_answer_to_either_spelling() {
        let resolved = resolve(&[("metric", "departures"), ("group_by", "properties.carrier,origin,country_code")]).expect("known");
        assert_eq!(resolved.selector, MetricSelector::Defined("departures".to_owned()));
        assert_eq!(resolved.group_by, [0, 1, 2].map(DimensionRef::Index));
        assert_eq!(resolved.group_names, ["carrier", "properties.origin", "country"]);
    }

    #[test]
    fn an_unknown_dimension_names_the_nearest() {
        for (metric, name, value, guess) in [
            ("page_view", "group_by", "contry_code", Some("country_code")),
            ("page_view", "group_by", "contry", Some("country")),
            ("page_view", "filter", "devise:tv", Some("device")),
            ("departures", "filter", "devise:tv", None),
            ("departures", "filter", "carier:UA", Some("carrier")),
            ("departures", "group_by", "event", None),
            ("page_view", "filter", "zzz:1", None),
        ] {
            let problem = resolve(&[("metric", metric), (name, value)]).expect_err("unknown");
            assert_eq!((problem.code, problem.status, problem.field.as_deref()), (ErrorCode::UnknownDimension, 422, Some(name)));
            assert_eq!(problem.did_you_mean.as_deref(), guess, "{problem:?}");
        }
    }
}
