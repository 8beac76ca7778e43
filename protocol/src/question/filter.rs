//! `dim:value`, `dim:a|b`, `!dim:value`, `dim:` (null), with `\|`, `\:`, `\,` and `\\` as escapes.

use serde::{Deserialize, Serialize};

/// One condition on one dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    pub dimension: String,
    /// `!dim:...`: none of the values.
    pub negated: bool,
    /// Any of these; `None` is null.
    pub values: Vec<Option<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter is `dimension:value`; there is no `:` in it")]
    NoColon,
    #[error("the dimension before `:` is empty")]
    NoDimension,
    #[error("`\\` must be followed by `|`, `:`, `,` or `\\`")]
    BadEscape,
}

impl Filter {
    /// # Errors
    /// See [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let (negated, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut dimension = None;
        let mut values = Vec::new();
        let mut current = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(e @ ('|' | ':' | ',' | '\\')) => current.push(e),
                    _ => return Err(FilterError::BadEscape),
                },
                ':' if dimension.is_none() => dimension = Some(std::mem::take(&mut current)),
                '|' if dimension.is_some() => values.push(std::mem::take(&mut current)),
                c => current.push(c),
            }
        }
        let dimension = dimension.ok_or(FilterError::NoColon)?;
        if dimension.is_empty() {
            return Err(FilterError::NoDimension);
        }
        values.push(current);
        let values = values.into_iter().map(|v| (!v.is_empty()).then_some(v)).collect();
        Ok(Self { dimension, negated, values })
    }

    /// Whether a dimension's value passes.
    pub fn matches(&self, value: Option<&str>) -> bool {
        self.values.iter().any(|v| v.as_deref() == value) != self.negated
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let escape = |text: &str| {
            text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
                if matches!(c, '|' | ':' | ',' | '\\') {
                    out.push('\\');
                }
                out.push(c);
                out
            })
        };
        let values: Vec<String> = self.values.iter().map(|v| v.as_deref().map(escape).unwrap_or_default()).collect();
        write!(f, "{}{}:{}", if self.negated { "!" } else { "" }, escape(&self.dimension), values.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_read_and_print_alike() {
        for (text, dimension, negated, values) in [
            ("device_type:mobile", "device_type", false, vec![Some("mobile")]),
            ("!country_code:US|DE", "country_code", true, vec![Some("US"), Some("DE")]),
            ("source:", "source", false, vec![None]),
            ("a\\:b:c\\|d|e:f", "a:b", false, vec![Some("c|d"), Some("e:f")]),
        ] {
            let filter = Filter::parse(text).expect(text);
            assert_eq!(filter.dimension, dimension);
            assert_eq!(filter.negated, negated);
            assert_eq!(filter.values.iter().map(Option::as_deref).collect::<Vec<_>>(), values);
            assert_eq!(Filter::parse(&filter.to_string()).as_ref(), Ok(&filter));
        }
        assert_eq!(Filter::parse("mobile"), Err(FilterError::NoColon));
        assert_eq!(Filter::parse(":x"), Err(FilterError::NoDimension));
        assert_eq!(Filter::parse("a:b\\"), Err(FilterError::BadEscape));
    }

    #[test]
    fn null_is_a_value_of_its_own() {
        let null = Filter::parse("source:").expect("valid");
        assert!(null.matches(None) && !null.matches(Some("")) && !null.matches(Some("web")));
        let not_web = Filter::parse("!source:web").expect("valid");
        assert!(not_web.matches(None) && !not_web.matches(Some("web")));
    }
}
