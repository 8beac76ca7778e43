//! JSON schemas as short text and as tables.

use serde_json::Value;

use super::{escaped, prose};

const REF: &str = "#/components/schemas/";

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A type in a few words, with links to the schemas that have a name.
pub fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix(REF)) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escaped(name));
    }
    for (key, joint) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        let parts: Vec<String> =
            list(&schema[key]).iter().filter(|part| part.get("required").is_none() || part.get("type").is_some()).map(type_of).collect();
        if !parts.is_empty() {
            return parts.join(joint);
        }
    }
    if schema["enum"].is_array() {
        return list(&schema["enum"]).iter().map(|v| format!("<code>{}</code>", escaped(&plain(v)))).collect::<Vec<_>>().join(" ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let one = |name: &&str| match *name {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() && schema.get("properties").is_none() => {
            format!("map to {}", type_of(&schema["additionalProperties"]))
        }
        name => name.to_owned(),
    };
    let mut text = names.iter().map(one).collect::<Vec<_>>().join(" or ");
    let bounds = [("minimum", "≥ "), ("maximum", "≤ "), ("maxLength", "≤ length "), ("maxItems", "≤ items ")];
    let bounds: Vec<String> = bounds.iter().filter_map(|(key, sign)| schema.get(*key).map(|v| format!("{sign}{}", grouped(v)))).collect();
    let is_trivial = bounds.len() == 1 && schema["minimum"] == 0;
    if !bounds.is_empty() && !is_trivial {
        text.push_str(&format!(" <span class=\"bound\">{}</span>", bounds.join(", ")));
    }
    if let Some(format @ ("date-time" | "date")) = schema["format"].as_str() {
        text.push_str(&format!(" <span class=\"bound\">{format}</span>"));
    }
    if text.is_empty() { "any".to_owned() } else { text }
}

fn grouped(value: &Value) -> String {
    crate::cli::output::grouped(&plain(value)).replace(',', " ")
}

/// A value as a person writes it.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The fields of an object as rows of a table; those of all parts when it is put together.
pub fn fields(schema: &Value) -> String {
    let mut rows = String::new();
    for part in ["allOf", "oneOf", "anyOf"].iter().flat_map(|key| list(&schema[*key])) {
        rows.push_str(&fields(part));
    }
    let required: Vec<&str> = list(&schema["required"]).iter().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&name.as_str()) { " <span class=\"must\">required</span>" } else { "" };
        rows.push_str(&row(&format!("<code>{}</code>{mark}", escaped(name)), &type_of(field), field));
    }
    rows
}

pub fn row(name: &str, kind: &str, described: &Value) -> String {
    let mut description = prose(described["description"].as_str().unwrap_or_default());
    let extra = described.get("schema").unwrap_or(described);
    let example = extra.get("default").map(|v| ("Default", v)).or_else(|| extra["examples"].get(0).map(|v| ("Such as", v)));
    if let Some((what, value)) = example {
        let text = value.as_array().map_or_else(|| plain(value), |items| items.iter().map(plain).collect::<Vec<_>>().join(","));
        description.push_str(&format!(" <span class=\"quiet\">{what} <code>{}</code>.</span>", escaped(&text)));
    }
    format!("<tr><td>{name}</td><td>{kind}</td><td>{description}</td></tr>")
}
