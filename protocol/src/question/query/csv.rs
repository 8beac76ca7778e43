//! An answer as CSV (RFC 4180): `time` if there are steps, the groups, the values, and with a comparison the earlier values.

use super::PreparedQuery;
use crate::question::answer::{Answer, csv_field};

impl PreparedQuery {
    /// Columns stand in the order asked; null is an empty field.
    pub fn to_csv(&self, answer: &Answer) -> String {
        let labels: Vec<&str> = self.query.aggregates.iter().map(super::Aggregate::label).collect();
        let (stepped, compared) = (self.current.plan.step.is_some(), self.earlier.is_some());
        let mut columns: Vec<String> = stepped.then(|| "time".to_owned()).into_iter().collect();
        columns.extend(self.group_names().iter().cloned());
        columns.extend(labels.iter().map(|l| (*l).to_owned()));
        if compared {
            columns.extend(stepped.then(|| "compare.time".to_owned()));
            columns.extend(labels.iter().map(|l| format!("compare.{l}")));
        }
        let mut out = String::new();
        push_line(&mut out, columns.iter().map(String::as_str));
        let number = |value: Option<&Option<f64>>| value.copied().flatten().map(|v| v.to_string()).unwrap_or_default();
        for row in answer.data.iter() {
            let mut fields: Vec<String> = row.time.clone().into_iter().collect();
            let group = row.group.as_ref();
            fields.extend(self.group_names().iter().map(|n| group.and_then(|g| g.get(n).cloned().flatten()).unwrap_or_default()));
            fields.extend(labels.iter().map(|l| number(row.values.get(*l))));
            if let Some(earlier) = &row.compare {
                fields.extend(earlier.time.clone());
                fields.extend(labels.iter().map(|l| number(earlier.values.get(*l))));
            }
            push_line(&mut out, fields.iter().map(String::as_str));
        }
        out
    }
}

fn push_line<'a>(out: &mut String, fields: impl Iterator<Item = &'a str>) {
    for (i, field) in fields.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&csv_field(field));
    }
    out.push_str("\r\n");
}
