//! A time range, a step and a time zone into slices of stored windows.
//!
//! Windows are kept in UTC at three grains, each for its own time. A step of a time zone is read as the coarsest windows that tile it: days
//! inside, hours and minutes at its edges. Where the finer grains have been dropped, the ends of the range move outwards to the windows that are left,
//! and a step whose start falls inside such a window cannot be given.

mod steps;

use crate::error::{ErrorCode, Problem};
use crate::event::command::ShardSettings;
use crate::limits::{AUTO_POINTS_MAX, POINTS_PER_GROUP_MAX};
use crate::question::query::{ScanPlan, Slice, Step, StepWidth, TimeRange, Zone};
use crate::time::{Grain, rfc3339};

/// How long windows of each grain are kept, in milliseconds of event time; `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub minute_ms: Option<u64>,
    pub hour_ms: Option<u64>,
    pub day_ms: Option<u64>,
}

impl From<&ShardSettings> for Retention {
    fn from(settings: &ShardSettings) -> Self {
        Self { minute_ms: settings.retention_minute_ms, hour_ms: settings.retention_hour_ms, day_ms: settings.retention_day_ms }
    }
}

/// What is read for a query, and how it is laid out over steps.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryPlan {
    /// The range that is really covered: as asked, moved outwards to window borders.
    pub range: TimeRange,
    /// What `auto` chose; `None` is one value for the range.
    pub step: Option<StepWidth>,
    /// Start of each step in order, UTC milliseconds; the first may lie before the range.
    pub starts: Vec<i64>,
    pub scan: ScanPlan,
    /// Coarsest grain read.
    pub grain: Grain,
    /// The range begins before what is kept at any grain, so it cannot be covered in full.
    pub reaches_expired: bool,
}

/// Plans a query.
///
/// # Errors
/// 422: too many steps, or kept windows that do not give the step.
pub fn plan(range: TimeRange, step: Step, zone: &Zone, retention: Retention, now_ms: i64) -> Result<QueryPlan, Problem> {
    let kept = Kept::new(retention, now_ms);
    let covered = TimeRange { from_ms: kept.round_down(range.from_ms), to_ms: kept.round_up(range.to_ms) };
    let (width, starts) = match step {
        Step::None => (None, vec![covered.from_ms]),
        Step::Every(width) => (Some(width), steps(covered, width, zone, &kept)?),
        Step::Auto => {
            let (width, starts) = auto(covered, zone, &kept)?;
            (Some(width), starts)
        }
    };
    let scan = scan(covered, &starts);
    let grain = scan.slices.iter().map(|s| s.grain).max().unwrap_or(Grain::Minute);
    Ok(QueryPlan { range: covered, step: width, starts, scan, grain, reaches_expired: covered.from_ms < kept.day_from })
}

/// Plans a scan for windows that may overlap, each at least a minute: between any two of their borders that follow each other lies one bucket, so that
/// every window is a run of whole buckets. [`QueryPlan::starts`] has the buckets' starts.
///
/// # Errors
/// 422: too many borders, or one where kept windows do not meet.
pub fn plan_windows(windows: &[TimeRange], retention: Retention, now_ms: i64) -> Result<QueryPlan, Problem> {
    let kept = Kept::new(retention, now_ms);
    // A window ends before another begins at the same border.
    let mut borders: Vec<(i64, i32)> = windows.iter().flat_map(|w| [(w.from_ms, 1), (w.to_ms, -1)]).collect();
    borders.sort_unstable();
    let mut plan = ScanPlan::default();
    let (mut starts, mut open) = (Vec::new(), 0);
    for (at, border) in borders.iter().enumerate() {
        open += border.1;
        let (from_ms, to_ms) = (border.0, borders.get(at + 1).map_or(border.0, |next| next.0));
        if !kept.is_border(from_ms) {
            let detail = format!(
                "{} lies inside a window of {}: finer ones are not kept that long; ask for a later time, or whole hours or days",
                rfc3339(from_ms),
                kept.finest_at(from_ms).as_str()
            );
            return Err(Problem::new(ErrorCode::GrainUnavailable, detail));
        }
        if open > 0 && from_ms < to_ms {
            tile(from_ms, to_ms, Grain::Day, plan.buckets, &mut plan.slices);
            starts.push(from_ms);
            plan.buckets += 1;
        }
    }
    if starts.len() > POINTS_PER_GROUP_MAX {
        let detail = format!("the windows have more than {POINTS_PER_GROUP_MAX} pieces");
        return Err(Problem::new(ErrorCode::TooManyPoints, detail).limit(POINTS_PER_GROUP_MAX as u64));
    }
    let range = TimeRange { from_ms: borders.first().map_or(0, |b| b.0), to_ms: borders.last().map_or(0, |b| b.0) };
    let grain = plan.slices.iter().map(|s| s.grain).max().unwrap_or(Grain::Minute);
    Ok(QueryPlan { range, step: None, starts, scan: plan, grain, reaches_expired: range.from_ms < kept.day_from })
}

fn auto(range: TimeRange, zone: &Zone, kept: &Kept) -> Result<(StepWidth, Vec<i64>), Problem> {
    let fine_enough = StepWidth::ALL.into_iter().filter(|w| range.length_ms() / w.ms() <= AUTO_POINTS_MAX as i64);
    let mut last = None;
    for width in fine_enough.chain([StepWidth::Day]) {
        match steps(range, width, zone, kept) {
            Ok(starts) => return Ok((width, starts)),
            Err(problem) => last = Some(problem),
        }
    }
    Err(last.unwrap_or_else(|| Problem::new(ErrorCode::GrainUnavailable, "no step fits").field("step")))
}

/// Starts of the steps that touch the range, once it is sure that kept windows can give them.
fn steps(range: TimeRange, width: StepWidth, zone: &Zone, kept: &Kept) -> Result<Vec<i64>, Problem> {
    let too_many = |width: StepWidth| range.length_ms() / width.ms() >= POINTS_PER_GROUP_MAX as i64;
    if too_many(width) {
        let fits = StepWidth::ALL.into_iter().find(|w| !too_many(*w));
        let advice = fits.map_or("no step", StepWidth::as_str);
        let detail = format!("a step of {} gives more than {POINTS_PER_GROUP_MAX} points a group; {advice} fits", width.as_str());
        return Err(unavailable(ErrorCode::TooManyPoints, detail, fits).limit(POINTS_PER_GROUP_MAX as u64));
    }
    let starts = steps::starts(range, width, zone)?;
    match starts.iter().find(|s| **s > range.from_ms && !kept.is_border(**s)) {
        None => Ok(starts),
        Some(&start) => {
            let coarser = StepWidth::ALL.into_iter().filter(|w| *w > width && !too_many(*w));
            let fits =
                coarser.into_iter().find(|w| steps::starts(range, *w, zone).is_ok_and(|s| s.iter().skip(1).all(|s| kept.is_border(*s))));
            let detail = format!(
                "a step of {} in {} begins at {}, inside a window of {}: finer ones are not kept that long; ask for a later `from`{}",
                width.as_str(),
                zone.name,
                rfc3339(start),
                kept.finest_at(start).as_str(),
                fits.map_or_else(|| ", `tz=UTC` or `step=none`".to_owned(), |w| format!(" or `step={}`", w.as_str())),
            );
            Err(unavailable(ErrorCode::GrainUnavailable, detail, fits))
        }
    }
}

fn unavailable(code: ErrorCode, detail: String, fits: Option<StepWidth>) -> Problem {
    let mut problem = Problem::new(code, detail).field("step");
    problem.suggested_step = fits.map(|w| w.as_str().to_owned());
    problem
}

/// First moment that each grain is still kept for. Shards drop minutes by whole hours and hours by whole days, so these are aligned one grain coarser.
struct Kept {
    minute_from: i64,
    hour_from: i64,
    day_from: i64,
}

impl Kept {
    fn new(retention: Retention, now_ms: i64) -> Self {
        let from = |kept_ms: Option<u64>, drops_by: Grain| match kept_ms.map(i64::try_from) {
            Some(Ok(kept_ms)) => drops_by.floor(now_ms.saturating_sub(kept_ms).max(i64::MIN / 2)),
            _ => i64::MIN,
        };
        let day_from = from(retention.day_ms, Grain::Day);
        let hour_from = from(retention.hour_ms, Grain::Day).max(day_from);
        Self { minute_from: from(retention.minute_ms, Grain::Hour).max(hour_from), hour_from, day_from }
    }

    fn finest_at(&self, time_ms: i64) -> Grain {
        if time_ms >= self.minute_from {
            Grain::Minute
        } else if time_ms >= self.hour_from {
            Grain::Hour
        } else {
            Grain::Day
        }
    }

    /// Whether windows that are kept meet at this moment.
    fn is_border(&self, time_ms: i64) -> bool {
        self.finest_at(time_ms).floor(time_ms) == time_ms
    }

    fn round_down(&self, time_ms: i64) -> i64 {
        self.finest_at(time_ms).floor(time_ms)
    }

    fn round_up(&self, time_ms: i64) -> i64 {
        self.finest_at(time_ms).ceil(time_ms)
    }
}

/// Tiles each step with the coarsest windows that fit; at most five slices a step.
fn scan(range: TimeRange, starts: &[i64]) -> ScanPlan {
    let mut plan = ScanPlan { slices: Vec::with_capacity(starts.len()), buckets: starts.len() as u32 };
    for (bucket, start) in starts.iter().enumerate() {
        let from = range.from_ms.max(*start);
        let to = starts.get(bucket + 1).copied().unwrap_or(i64::MAX).min(range.to_ms);
        tile(from, to, Grain::Day, bucket as u32, &mut plan.slices);
    }
    plan
}

fn tile(from_ms: i64, to_ms: i64, grain: Grain, bucket: u32, slices: &mut Vec<Slice>) {
    let (inner_from, inner_to) = (grain.ceil(from_ms), grain.floor(to_ms));
    let finer = match grain {
        Grain::Day => Some(Grain::Hour),
        Grain::Hour => Some(Grain::Minute),
        Grain::Minute => None,
    };
    match finer {
        Some(finer) if inner_from >= inner_to => tile(from_ms, to_ms, finer, bucket, slices),
        Some(finer) => {
            tile(from_ms, inner_from, finer, bucket, slices);
            slices.push(Slice { from_ms: inner_from, to_ms: inner_to, grain, bucket });
            tile(inner_to, to_ms, finer, bucket, slices);
        }
        None if from_ms < to_ms => slices.push(Slice { from_ms, to_ms, grain, bucket }),
        None => {}
    }
}

#[cfg(test)]
mod tests;
