//! An answer as an Arrow IPC stream: one batch, with the columns of the CSV, the receipt and the cursor in the metadata of the schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema};
use jiff::Timestamp;
use tallymesh_protocol::question::answer::{Answer, Row};
use tallymesh_protocol::question::query::{Aggregate, PreparedQuery};

pub const MEDIA_TYPE: &str = "application/vnd.apache.arrow.stream";

/// `time` (milliseconds, UTC) if there are steps, a text column for each dimension, then the values: counts as `uint64`, the others as `float64`; with a
/// comparison the earlier ones too. Everything may be null.
///
/// # Errors
/// Of the encoder.
pub fn stream(prepared: &PreparedQuery, answer: &Answer) -> Result<Vec<u8>, ArrowError> {
    let rows = &answer.data;
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let stepped = prepared.current.plan.step.is_some();
    if stepped {
        columns.push(("time".to_owned(), times(rows, |row| row.time.as_deref())));
    }
    for name in prepared.group_names() {
        let values = rows.iter().map(|row| row.group.as_ref().and_then(|group| group.get(name)?.as_deref()));
        columns.push((name.clone(), Arc::new(values.collect::<StringArray>())));
    }
    for aggregate in &prepared.query.aggregates {
        let value = |row: &Row| row.values.get(aggregate.label()).copied().flatten();
        columns.push((aggregate.label().to_owned(), numbers(aggregate, rows, value)));
    }
    if prepared.earlier.is_some() {
        if stepped {
            columns.push(("compare.time".to_owned(), times(rows, |row| row.compare.as_ref()?.time.as_deref())));
        }
        for aggregate in &prepared.query.aggregates {
            let value = |row: &Row| row.compare.as_ref()?.values.get(aggregate.label()).copied().flatten();
            columns.push((format!("compare.{}", aggregate.label()), numbers(aggregate, rows, value)));
        }
    }
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata(answer)?));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect())?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    writer.into_inner()
}

fn times<'a>(rows: &'a [Row], time: impl Fn(&'a Row) -> Option<&'a str>) -> ArrayRef {
    let times = rows.iter().map(|row| time(row)?.parse::<Timestamp>().ok().map(Timestamp::as_millisecond));
    Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

fn numbers(aggregate: &Aggregate, rows: &[Row], value: impl Fn(&Row) -> Option<f64>) -> ArrayRef {
    match aggregate {
        Aggregate::Count => Arc::new(rows.iter().map(|row| value(row).map(|v| v.round() as u64)).collect::<UInt64Array>()),
        _ => Arc::new(rows.iter().map(value).collect::<Float64Array>()),
    }
}

fn metadata(answer: &Answer) -> Result<HashMap<String, String>, ArrowError> {
    let receipt = serde_json::to_string(&answer.receipt).map_err(|e| ArrowError::JsonError(e.to_string()))?;
    let mut metadata = HashMap::from([("receipt".to_owned(), receipt)]);
    metadata.extend(answer.cursor.clone().map(|cursor| ("cursor".to_owned(), cursor)));
    Ok(metadata)
}
