//! Parameters of Prometheus' interface, from the address and a form body: moments, steps, durations.

use jiff::Timestamp;
use tallymesh_protocol::time::{MINUTE_MS, SECOND_MS};

use super::envelope::Failure;
use super::expression::duration_fits;
use crate::limits::{PROMQL_POINTS_MAX, PROMQL_RANGE_MS_MAX};

/// Moments that are taken: years 1 to 9999, with room for the longest range on either side.
const SECONDS_MAX: f64 = 253_000_000_000.0;
const SECONDS_MIN: f64 = -58_000_000_000.0;

/// Decoded names and values; what is in the address comes first.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<(String, String)>);

/// The moments that an expression is evaluated at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// In order, UTC milliseconds; at least one.
    pub times_ms: Vec<i64>,
    /// Of a range query.
    pub step_ms: Option<i64>,
}

impl Form {
    pub fn read(query: &str, body: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body));
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first value, if it is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, v)| n == name && !v.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn expression(&self) -> Result<&str, Failure> {
        self.get("query").ok_or_else(|| Failure::bad_data("invalid parameter \"query\": it is missing"))
    }

    fn moment(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.get(name).map(|text| moment(text).map_err(|e| invalid(name, &e))).transpose()
    }

    fn needed(&self, name: &str) -> Result<i64, Failure> {
        self.moment(name)?.ok_or_else(|| invalid(name, "it is missing"))
    }

    /// Longest that the query may take, in milliseconds.
    pub fn timeout_ms(&self) -> Result<Option<u64>, Failure> {
        self.get("timeout").map(|text| duration_ms(text).map(|ms| ms as u64).map_err(|e| invalid("timeout", &e))).transpose()
    }

    /// `limit` of lists; 0 and none are all.
    pub fn limit(&self) -> Result<usize, Failure> {
        let Some(text) = self.get("limit") else { return Ok(usize::MAX) };
        match text.parse::<usize>() {
            Ok(0) => Ok(usize::MAX),
            Ok(limit) => Ok(limit),
            Err(_) => Err(invalid("limit", &format!("`{text}` is no whole number"))),
        }
    }

    pub fn instant(&self, now_ms: i64) -> Result<Grid, Failure> {
        Ok(Grid { times_ms: vec![self.moment("time")?.unwrap_or(now_ms)], step_ms: None })
    }

    /// # Errors
    /// 400: a parameter that is missing or does not parse, a reversed range, too many points.
    pub fn range(&self) -> Result<Grid, Failure> {
        let (start, end) = (self.needed("start")?, self.needed("end")?);
        let step = self.get("step").ok_or_else(|| invalid("step", "it is missing"))?;
        let step_ms = duration_ms(step).map_err(|e| invalid("step", &e))?;
        if end < start {
            return Err(invalid("end", "end timestamp must not be before start time"));
        }
        if (end - start) / step_ms >= PROMQL_POINTS_MAX as i64 {
            return Err(Failure::bad_data(format!(
                "exceeded maximum resolution of {PROMQL_POINTS_MAX} points per timeseries. Try decreasing the query resolution (?step=XX)"
            )));
        }
        let times_ms = (0..=(end - start) / step_ms).map(|i| start + i * step_ms).collect();
        Ok(Grid { times_ms, step_ms: Some(step_ms) })
    }

    /// `start` and `end` of a look-up; the last day when they are left out.
    pub fn span(&self, now_ms: i64, span_ms: i64) -> Result<(i64, i64), Failure> {
        let end = self.moment("end")?.unwrap_or(now_ms);
        let start = self.moment("start")?.unwrap_or(end - span_ms);
        if end < start { Err(invalid("end", "end timestamp must not be before start time")) } else { Ok((start, end)) }
    }
}

fn invalid(name: &str, why: &str) -> Failure {
    Failure::bad_data(format!("invalid parameter \"{name}\": {why}"))
}

/// Unix seconds or RFC 3339, in milliseconds.
fn moment(text: &str) -> Result<i64, String> {
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            text.parse::<Timestamp>().map_err(|_| format!("cannot parse `{text}` to a valid timestamp"))?.as_millisecond() as f64 / 1e3
        }
    };
    if (SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        Ok((seconds * 1e3).round() as i64)
    } else {
        Err(format!("`{text}` is outside the time that there is"))
    }
}

/// Seconds or `1h30m`, in milliseconds; more than 0.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    let ms = match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1e3).round(),
        Err(_) => {
            duration_fits(text)?;
            promql_parser::util::duration::parse_duration(text)
                .map_err(|_| format!("cannot parse `{text}` to a valid duration"))?
                .as_millis() as f64
        }
    };
    if ms.is_nan() || ms < 1.0 {
        Err(format!("`{text}` must be more than zero"))
    } else if ms > PROMQL_RANGE_MS_MAX as f64 {
        Err(format!("`{text}` is over {} days", PROMQL_RANGE_MS_MAX / (24 * 60 * MINUTE_MS)))
    } else {
        Ok(ms as i64)
    }
}

/// The first whole number of minutes that is not less.
pub const fn whole_minutes(ms: i64) -> i64 {
    let minutes = ms / MINUTE_MS + (ms % MINUTE_MS != 0) as i64;
    minutes * MINUTE_MS
}

/// `90s`, `5m`: for messages.
pub fn shown(ms: i64) -> String {
    if ms % MINUTE_MS == 0 { format!("{}m", ms / MINUTE_MS) } else { format!("{}s", ms as f64 / SECOND_MS as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::read(text, b"")
    }

    #[test]
    fn moments_are_seconds_or_rfc_3339() {
        for (text, ms) in [
            ("1767268800", 1_767_268_800_000),
            ("1767268800.25", 1_767_268_800_250),
            ("2026-01-01T12:00:00Z", 1_767_268_800_000),
            ("-1", -1_000),
        ] {
            assert_eq!(moment(text), Ok(ms), "{text}");
        }
        for bad in ["yesterday", "NaN", "inf", "1e300", "2026-01-01"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_seconds_or_units() {
        for (text, ms) in [("60", 60_000), ("0.5", 500), ("1m30s", 90_000), ("1d", 86_400_000)] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for bad in ["0", "-5", "NaN", "soon", "1e300", "1000000d", "99999999999d5m"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
        assert_eq!((whole_minutes(60_000), whole_minutes(60_001), whole_minutes(1)), (60_000, 120_000, 60_000));
    }

    #[test]
    fn a_range_has_both_ends_and_a_limit() {
        let grid = form("start=0&end=240&step=2m").range().expect("valid");
        assert_eq!(grid, Grid { times_ms: vec![0, 120_000, 240_000], step_ms: Some(120_000) });
        assert_eq!(form("start=0&end=10999&step=1").range().expect("as many as there may be").times_ms.len(), 11_000);
        for bad in ["start=0&end=11000&step=1", "start=1&end=0&step=1", "start=0&end=1", "end=1&step=1", "start=0&end=1&step=0"] {
            assert_eq!(form(bad).range().expect_err(bad).status, 400);
        }
    }

    #[test]
    fn the_address_and_the_body_are_one_form() {
        let form = Form::read("query=a%20b&match[]=x", b"match[]=y&time=");
        assert_eq!(form.expression(), Ok("a b"));
        assert_eq!(form.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(form.instant(7).expect("now").times_ms, [7]);
    }
}
