//! Parameters as they came, by name, from a URL or a JSON object: unknown and repeated names are refused here, values are not looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use super::split::escape;
use crate::error::{ErrorCode, Problem, nearest};
use crate::limits::FILTERS_MAX;

/// Every parameter of a metric query; `filter` alone may repeat.
pub const PARAMETERS: [&str; 18] = [
    "metric",
    "agg",
    "range",
    "from",
    "to",
    "step",
    "group_by",
    "filter",
    "order",
    "limit",
    "cursor",
    "tz",
    "compare",
    "partial",
    "token",
    "cache",
    "fill",
    "timeout_ms",
];

/// `format` is a parameter of the request, not of one query in it; it is accepted beside [`PARAMETERS`].
pub(super) const FORMAT: &str = "format";

/// What may differ from page to page.
const PAGING: [&str; 5] = ["cursor", "limit", "timeout_ms", "token", FORMAT];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryParams {
    single: BTreeMap<&'static str, String>,
    filters: Vec<String>,
}

impl QueryParams {
    /// Decoded name and value pairs of a query string.
    ///
    /// # Errors
    /// 422 for an unknown name, a name that is there twice, too many filters.
    pub fn from_pairs<N: AsRef<str>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, Problem> {
        let mut params = Self::default();
        for (name, value) in pairs {
            params.set(name.as_ref(), value.into())?;
        }
        Ok(params)
    }

    /// One object of a POST body. Lists may be arrays or comma lists, numbers may be numbers.
    ///
    /// # Errors
    /// As [`Self::from_pairs`]; 422 for values of another type.
    pub fn from_json(query: &Value) -> Result<Self, Problem> {
        let Value::Object(fields) = query else {
            return Err(Problem::new(
                ErrorCode::BadParameter,
                "a query must be a JSON object, such as {\"metric\":\"page_view\",\"range\":\"24h\"}",
            ));
        };
        let mut params = Self::default();
        for (name, value) in fields {
            let wrong = || {
                Problem::new(ErrorCode::BadParameter, format!("`{name}` must be a string, a number or a list of strings"))
                    .field(name.as_str())
            };
            match value {
                Value::Null => {}
                Value::String(text) => params.set(name, text.clone())?,
                Value::Number(number) => params.set(name, number.to_string())?,
                Value::Array(items) if matches!(name.as_str(), "agg" | "group_by" | "filter") => {
                    let items = items.iter().map(|i| i.as_str().ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
                    if name == "filter" {
                        items.into_iter().try_for_each(|filter| params.set(name, filter.to_owned()))?;
                    } else {
                        params.set(name, items.into_iter().map(escape).collect::<Vec<_>>().join(","))?;
                    }
                }
                Value::Array(_) | Value::Object(_) | Value::Bool(_) => return Err(wrong()),
            }
        }
        Ok(params)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Problem> {
        let Some(&name) = PARAMETERS.iter().chain([&FORMAT]).find(|p| **p == name) else {
            let detail = format!("there is no parameter `{name}`; there are {}", PARAMETERS.join(", "));
            return Err(Problem::new(ErrorCode::BadParameter, detail).field(name).did_you_mean(nearest(name, PARAMETERS)));
        };
        if value.is_empty() {
            return Ok(());
        }
        if name == "filter" {
            if self.filters.len() == FILTERS_MAX {
                return Err(too_many_filters());
            }
            self.filters.push(value);
        } else if self.single.insert(name, value).is_some() {
            return Err(Problem::new(ErrorCode::BadParameter, format!("`{name}` is there twice; only `filter` may repeat")).field(name));
        }
        Ok(())
    }

    /// `None` when absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.single.get(name).map(String::as_str)
    }

    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Every name and value that changes an answer, in a fixed order: equal questions, asked at one moment, have equal texts.
    pub fn question(&self) -> String {
        self.text_without(&["timeout_ms", "token", "cache", FORMAT])
    }

    /// Every name and value that changes what rows there are and their order, in a fixed order: equal for every page of a query.
    pub fn canonical(&self) -> String {
        self.text_without(&PAGING)
    }

    fn text_without(&self, left_out: &[&str]) -> String {
        let mut out = String::new();
        let all = self.single.iter().filter(|(n, _)| !left_out.contains(n)).map(|(n, v)| (*n, v));
        for (name, value) in all.chain(self.filters.iter().map(|f| ("filter", f))) {
            out.push_str(&format!("{name}={}:{value}\n", value.len()));
        }
        out
    }
}

pub(super) fn too_many_filters() -> Problem {
    Problem::new(ErrorCode::BadParameter, format!("more than {FILTERS_MAX} filters; join values of one dimension as `dim:a|b`"))
        .field("filter")
        .limit(FILTERS_MAX as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_right_name() {
        let problem = QueryParams::from_pairs([("metric", "a"), ("groupby", "country_code")]).expect_err("unknown");
        assert_eq!((problem.status, problem.field.as_deref(), problem.did_you_mean.as_deref()), (422, Some("groupby"), Some("group_by")));
        let twice = QueryParams::from_pairs([("metric", "a"), ("metric", "b")]).expect_err("twice");
        assert_eq!(twice.field.as_deref(), Some("metric"));
    }

    #[test]
    fn json_and_url_say_the_same() {
        let url = QueryParams::from_pairs([
            ("metric", "page_view"),
            ("agg", "count,users"),
            ("group_by", r"country_code,a\,b"),
            ("filter", "x:1"),
            ("filter", "y:2"),
            ("limit", "5"),
        ]);
        let json = QueryParams::from_json(&json!({"metric": "page_view", "agg": ["count", "users"], "group_by": ["country_code", "a,b"],
            "filter": ["x:1", "y:2"], "limit": 5, "tz": null}));
        assert_eq!(json, url);
        for bad in [json!([]), json!({"metric": ["a"]}), json!({"agg": [1]}), json!({"limit": true}), json!({"metric": {}})] {
            assert_eq!(QueryParams::from_json(&bad).expect_err("wrong type").code, ErrorCode::BadParameter, "{bad}");
        }
    }

    #[test]
    fn filters_are_bounded() {
        let many = std::iter::repeat_n(("filter", "a:b"), FILTERS_MAX + 1);
        assert_eq!(QueryParams::from_pairs(many).expect_err("too many").limit, Some(FILTERS_MAX as u64));
    }
}
