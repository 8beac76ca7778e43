//! Sizes and durations as people write them: `8MiB`, `2m`, `forever`. Each prints in the form it reads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("`{0}` is not a size; write bytes, or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB")]
    Size(String),
    #[error("`{0}` is not a duration; write a number with ms, s, m, h, d, w or y, for example \"90d\" or \"1h30m\"")]
    Duration(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    const UNITS: [(&'static str, u64); 9] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
    ];

    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// For buffers of this process; sizes above the address space are cut to it.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let bad = || UnitError::Size(text.to_owned());
        let (number, unit) = trimmed.split_at(digits);
        if number.is_empty() {
            return Err(bad());
        }
        let unit = unit.trim();
        let factor = match unit {
            "" => 1,
            _ => Self::UNITS.iter().find(|(u, _)| u.eq_ignore_ascii_case(unit)).ok_or_else(bad)?.1,
        };
        let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
        number.checked_mul(factor).map(Self).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            Self::UNITS[..4].iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A length of time, to the millisecond. `d` is 24 hours, `y` 365 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    const UNITS: [(&'static str, u64); 7] =
        [("y", 365 * 86_400_000), ("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    pub const ZERO: Self = Self(Duration::ZERO);

    pub const fn ms(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    pub const fn minutes(n: u64) -> Self {
        Self::seconds(60 * n)
    }

    pub const fn hours(n: u64) -> Self {
        Self::minutes(60 * n)
    }

    pub const fn days(n: u64) -> Self {
        Self::hours(24 * n)
    }

    pub const fn duration(self) -> Duration {
        self.0
    }

    pub const fn as_ms(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::Duration(text.to_owned());
        let large = || UnitError::TooLarge(text.to_owned());
        let mut rest = text.trim();
        let mut total = 0u64;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let factor = Self::UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(bad)?.1;
            if number.is_empty() {
                return Err(bad());
            }
            let number: u64 = number.parse().map_err(|_| large())?;
            total = number.checked_mul(factor).and_then(|ms| total.checked_add(ms)).ok_or_else(large)?;
            rest = tail.trim_start();
        }
        // Kept to what signed milliseconds can hold, because event times are that.
        if total > i64::MAX as u64 / 4 {
            return Err(large());
        }
        Ok(Self::ms(total))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_ms();
        let (unit, factor) =
            if ms == 0 { ("s", 1) } else { *Self::UNITS.iter().find(|(_, factor)| ms.is_multiple_of(*factor)).unwrap_or(&("ms", 1)) };
        write!(f, "{}{unit}", ms / factor)
    }
}

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    For(Period),
    Forever,
}

impl Keep {
    /// Milliseconds; `None` is for ever.
    pub fn as_ms(self) -> Option<u64> {
        match self {
            Self::For(period) => Some(period.as_ms()),
            Self::Forever => None,
        }
    }
}

impl FromStr for Keep {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "forever" { Ok(Self::Forever) } else { text.parse().map(Self::For) }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(period) => period.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

/// A setting that the node may choose by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrAuto<T> {
    Auto,
    Set(T),
}

impl<T: FromStr> FromStr for OrAuto<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.trim() == "auto" { Ok(Self::Auto) } else { text.trim().parse().map(Self::Set) }
    }
}

impl<T: fmt::Display> fmt::Display for OrAuto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Set(value) => value.fmt(f),
        }
    }
}

/// Reads a `FromStr` value from a string, or from a bare number written as text.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr> Visitor<'_> for TextVisitor<T>
where
    T::Err: fmt::Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string such as \"8MiB\" or \"2m\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! serde_by_text {
    ($($(#[$attr:meta])* [$($generic:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generic)*> Serialize for $type where $type: fmt::Display {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de, $($generic)*> Deserialize<'de> for $type where $type: FromStr, <$type as FromStr>::Err: fmt::Display {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(std::marker::PhantomData))
            }
        }
    )*};
}

serde_by_text!([] ByteSize, [] Period, [] Keep, [T] OrAuto<T>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them_and_print_the_same() {
        for (text, bytes, printed) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("256 kib", 256 << 10, "256KiB"),
            ("1500", 1_500, "1500B"),
            ("2GB", 2_000_000_000, "1953125KiB"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!((size.0, size.to_string()), (bytes, printed.to_owned()));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for bad in ["", "MiB", "8 miles", "-1", "1.5MiB"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(UnitError::Size(bad.to_owned())), "{bad}");
        }
        assert_eq!("99999999999TiB".parse::<ByteSize>(), Err(UnitError::TooLarge("99999999999TiB".to_owned())));
    }

    #[test]
    fn durations_read_as_people_write_them_and_print_the_same() {
        for (text, ms, printed) in [
            ("2m", 120_000, "2m"),
            ("1h30m", 5_400_000, "90m"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
            ("7y", 7 * 365 * 86_400_000, "7y"),
            ("90d", 90 * 86_400_000, "90d"),
        ] {
            let period: Period = text.parse().expect(text);
            assert_eq!((period.as_ms(), period.to_string()), (ms, printed.to_owned()));
            assert_eq!(period.to_string().parse(), Ok(period));
        }
        for bad in ["", "10", "m", "5 parsecs", "1h-3m"] {
            assert_eq!(bad.parse::<Period>(), Err(UnitError::Duration(bad.to_owned())), "{bad}");
        }
        assert!("999999999999999999y".parse::<Period>().is_err());
    }

    #[test]
    fn forever_outlasts_any_period() {
        assert!("forever".parse::<Keep>().expect("valid") > "7y".parse().expect("valid"));
    }
}
