//! Metrics that the demo defines beside the default ones (A3).

use tallymesh_protocol::definition::MetricDefinition;

pub fn definitions() -> Vec<MetricDefinition> {
    let metric = |name: &str, event: &[&str], dimensions: &[&str], value: &str, description: &str| MetricDefinition {
        name: name.to_owned(),
        event: event.iter().map(|&e| e.to_owned()).collect(),
        dimensions: dimensions.iter().map(|&d| d.to_owned()).collect(),
        value: value.to_owned(),
        filter: Vec::new(),
        description: description.to_owned(),
    };
    vec![
        metric("feature_usage", &["feature_used"], &["feature"], "value", "Features used, by feature"),
        metric("page_traffic", &["page_view"], &["page", "referrer"], "value", "Pages viewed, by page and referrer"),
        metric("page_load", &["page_view"], &["page", "device_type"], "properties.load_ms", "Page load time in milliseconds"),
        metric("revenue", &["purchase"], &["country_code", "plan"], "value", "Purchases in euros, by country and plan"),
        metric("errors", &["error_occurred"], &["kind", "page"], "value", "Errors, by kind and page"),
    ]
}

#[cfg(test)]
mod tests {
    use tallymesh_protocol::definition::DefinitionSet;

    #[test]
    fn the_definitions_of_the_demo_are_valid() {
        let set = DefinitionSet::compile(1, super::definitions()).expect("valid definitions");
        assert_eq!(set.of_event("page_view").count(), 2);
    }
}
