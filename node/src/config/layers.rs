//! Merges the layers as TOML tables, so that an unknown key is found by its name before any value is read.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tallymesh_protocol::error::nearest;
use toml::{Table, Value};

use super::{Config, ConfigError};

/// `TALLYMESH_HTTP__ADDR` is `http.addr`.
pub const ENV_PREFIX: &str = "TALLYMESH_";

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Variables of the environment; those without the prefix or without `__` are not settings.
    pub env: Vec<(String, String)>,
    /// `--set section.key=value`, in order.
    pub sets: Vec<String>,
    /// Flags that stand for a setting: its path and the value as given.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The process's own environment.
    pub fn from_environment() -> Self {
        Self { env: std::env::vars().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect(), ..Self::default() }
    }
}

pub(super) fn merge(sources: &Sources) -> Result<Config, ConfigError> {
    let defaults = default_table();
    let mut merged = Table::new();
    if let Some(path) = &sources.file {
        merged = read_file(path)?;
        refuse_unknown(&merged, &defaults, &path.display().to_string())?;
    }
    for (name, text) in &sources.env {
        let Some(path) = name.strip_prefix(ENV_PREFIX).filter(|rest| rest.contains("__")) else { continue };
        let path = path.to_ascii_lowercase().replace("__", ".");
        assign(&mut merged, &defaults, &path, text, &format!("the environment variable {name}"))?;
    }
    for text in &sources.sets {
        let (path, value) = text.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment { text: text.clone() })?;
        assign(&mut merged, &defaults, path.trim(), value.trim(), "--set")?;
    }
    for (path, value) in &sources.flags {
        // A flag's text is the value itself, never TOML.
        put(&mut merged, path, Value::String(value.clone()));
    }
    Config::deserialize(merged).map_err(|e| ConfigError::Value(e.to_string().trim().to_owned()))
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax { origin: path.display().to_string(), detail: e.to_string() })
}

/// Every known key with its default. Settings have no optional fields, so none is missing.
pub(super) fn default_table() -> Table {
    match Value::try_from(Config::default()) {
        Ok(Value::Table(table)) => table,
        // The defaults are plain values; a test serialises them.
        _ => Table::new(),
    }
}

fn refuse_unknown(given: &Table, known: &Table, origin: &str) -> Result<(), ConfigError> {
    for (section, value) in given {
        match (known.get(section), value) {
            (None, _) => return Err(unknown(known, None, section, origin)),
            (Some(Value::Table(keys)), Value::Table(given)) => {
                if let Some(key) = given.keys().find(|k| !keys.contains_key(*k)) {
                    return Err(unknown(known, Some(section), key, origin));
                }
            }
            (Some(Value::Table(_)), _) => {
                return Err(ConfigError::Value(format!("`{section}` in {origin} is a section: write [{section}]")));
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

fn unknown(known: &Table, section: Option<&str>, key: &str, origin: &str) -> ConfigError {
    let path = section.map_or_else(|| key.to_owned(), |s| format!("{s}.{key}"));
    let all: Vec<String> = known
        .iter()
        .flat_map(|(name, value)| {
            let keys = value.as_table().into_iter().flat_map(|t| t.keys()).map(move |k| format!("{name}.{k}"));
            std::iter::once(name.clone()).chain(keys)
        })
        .collect();
    // A slip within the section first; then a key put under the wrong section.
    let within = section.and_then(|s| {
        let keys = known.get(s)?.as_table()?.keys().map(String::as_str);
        nearest(key, keys).map(|guess| format!("{s}.{guess}"))
    });
    let elsewhere = || all.iter().find(|p| p.rsplit('.').next() == Some(key)).cloned();
    let guess = within.or_else(elsewhere).or_else(|| nearest(&path, all.iter().map(String::as_str)));
    ConfigError::Unknown { origin: origin.to_owned(), key: path, guess }
}

fn assign(merged: &mut Table, known: &Table, path: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
    let default = match path.split_once('.') {
        Some((section, key)) => match known.get(section) {
            None => return Err(unknown(known, None, section, origin)),
            Some(Value::Table(keys)) => Some(keys.get(key).ok_or_else(|| unknown(known, Some(section), key, origin))?),
            Some(_) => return Err(unknown(known, None, path, origin)),
        },
        None => Some(known.get(path).ok_or_else(|| unknown(known, None, path, origin))?).filter(|v| !v.is_table()),
    };
    let Some(default) = default else {
        return Err(ConfigError::Value(format!("`{path}` in {origin} is a section: name a key in it, `{path}.<key>=<value>`")));
    };
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = match parsed {
        // A text setting that looks like a number or a date stays text.
        Some(v) if default.is_str() && !v.is_str() && !v.is_table() && !v.is_array() => Value::String(text.to_owned()),
        Some(v) => v,
        None => Value::String(text.to_owned()),
    };
    put(merged, path, value);
    Ok(())
}

fn put(merged: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            merged.insert(path.to_owned(), value);
        }
        Some((section, key)) => {
            let table = merged.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = table {
                table.insert(key.to_owned(), value);
            }
        }
    }
}
