//! What the node under test says of its own memory and disk.

use super::load::Connection;
use crate::cli::CliError;

/// Sums over all shards of the figures that a node exposes.
pub struct Gauges(String);

impl Gauges {
    /// # Errors
    /// The node is away.
    pub async fn read(address: &str) -> Result<Self, CliError> {
        let (_, body) = Connection::open(address).await?.get("/metrics").await?;
        Ok(Self(String::from_utf8_lossy(&body).into_owned()))
    }

    pub fn sum(&self, name: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(['{', ' '])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        self.0.lines().filter_map(value).sum()
    }

    /// Name, value and unit of what an event costs; what cannot be told is left out.
    pub fn costs(&self) -> Vec<(&'static str, f64, &'static str)> {
        let per = |bytes: f64, of: f64| if of > 0.0 { bytes / of } else { f64::NAN };
        let open_rows = self.sum("tallymesh_shard_open_rows");
        let windows = self.sum("tallymesh_shard_windows");
        let window_bytes = if open_rows > 0.0 { f64::NAN } else { self.sum("tallymesh_shard_window_bytes") };
        let dedup = self.sum("tallymesh_shard_dedup_memory_bytes") + self.sum("tallymesh_shard_dedup_disk_bytes");
        let costs = vec![
            ("sealed windows", windows, "windows"),
            ("a sealed window", per(window_bytes, windows), "bytes"),
            ("a dedup entry, memory and disk", per(dedup, self.sum("tallymesh_shard_dedup_entries")), "bytes"),
            ("an event in the log", per(self.sum("tallymesh_log_written_bytes_total"), self.sum("tallymesh_shard_events_total")), "bytes"),
            ("totals kept for queries", self.sum("tallymesh_shard_totals_bytes") / f64::from(1 << 20), "MiB"),
        ];
        costs.into_iter().filter(|(_, value, _)| value.is_finite()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_shards_and_what_cannot_be_told_is_left_out() {
        let text = "# HELP tallymesh_shard_windows x\ntallymesh_shard_windows{shard=\"0\"} 3\ntallymesh_shard_windows{shard=\"1\"} 5\n\
                    tallymesh_shard_window_bytes{shard=\"0\"} 800\ntallymesh_shard_open_rows{shard=\"0\"} 0\n";
        let costs = Gauges(text.to_owned()).costs();
        assert_eq!(costs[..2], [("sealed windows", 8.0, "windows"), ("a sealed window", 100.0, "bytes")]);
        assert_eq!(costs.len(), 3, "no events, no dedup entries");
    }
}
