//! Durations of an expression, looked at before it is parsed: promql-parser 0.11 leaves out a part whose number does not fit into 32 bits (`99999999999d5m` is
//! to it `5m`), and panics at seconds that no `std::time::Duration` can hold.

use super::shown;
use crate::limits::PROMQL_RANGE_MS_MAX;

/// The longest come first: `ms` is no `m`.
const UNITS: [&str; 7] = ["ms", "s", "m", "h", "d", "w", "y"];

/// # Errors
/// What is wrong with the first duration that the parser would not read as it is written, with its text.
pub fn check(expression: &str) -> Result<(), String> {
    let (mut rest, mut before) = (expression, None);
    let (mut in_brackets, mut is_offset) = (false, false);
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(token_bytes(rest, first));
        rest = after;
        match first {
            '#' => continue,
            c if c.is_whitespace() => continue,
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            c if c.is_ascii_digit() || c == '.' => {
                fits(token)?;
                if in_brackets || is_offset {
                    seconds_fit(token)?;
                }
            }
            _ => {}
        }
        is_offset = match first {
            '+' | '-' => is_offset,
            // Else it is a metric of that name.
            _ => token.eq_ignore_ascii_case("offset") && before.is_some_and(ends_operand),
        };
        before = token.chars().last();
    }
    Ok(())
}

/// A duration alone: none of its parts may be left out.
///
/// # Errors
/// As [`check`]. What is no duration passes.
pub fn fits(word: &str) -> Result<(), String> {
    let mut rest = word;
    let mut is_over = false;
    while !rest.is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let Some(after) = UNITS.iter().find_map(|name| unit.strip_prefix(name)).filter(|_| !number.is_empty()) else { return Ok(()) };
        is_over |= number.parse::<u32>().is_err();
        rest = after;
    }
    if is_over { Err(format!("the duration `{}` has a number over {}", shown(&word), u32::MAX)) } else { Ok(()) }
}

/// A number in the place of a duration is one of seconds.
fn seconds_fit(word: &str) -> Result<(), String> {
    let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let seconds = match hexadecimal {
        Some(digits) => digits.chars().try_fold(0.0, |sum, c| c.to_digit(16).map(|digit| sum * 16.0 + f64::from(digit))),
        None => word.parse().ok(),
    };
    match seconds {
        Some(seconds) if seconds > (PROMQL_RANGE_MS_MAX / 1_000) as f64 => {
            Err(format!("the duration `{}`, in seconds, is over {} days", shown(&word), PROMQL_RANGE_MS_MAX / 86_400_000))
        }
        _ => Ok(()),
    }
}

fn ends_operand(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':' | ')' | ']' | '}')
}

/// A string, a comment, a word or number, or one sign.
fn token_bytes(text: &str, first: char) -> usize {
    match first {
        '"' | '\'' | '`' => string_bytes(text, first),
        '#' => text.find('\n').unwrap_or(text.len()),
        c if c.is_alphanumeric() || matches!(c, '_' | '.') => word_bytes(text, c.is_ascii_digit() || c == '.'),
        c => c.len_utf8(),
    }
}

fn string_bytes(text: &str, quote: char) -> usize {
    let mut is_escaped = true;
    let end = text.char_indices().find(|&(_, c)| {
        let is_end = c == quote && !is_escaped;
        // The quote that opens it counts as escaped.
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, c)| at + c.len_utf8())
}

/// Names have colons in them; numbers an exponent with its sign.
fn word_bytes(text: &str, is_number: bool) -> usize {
    let is_decimal = is_number && !text.starts_with("0x") && !text.starts_with("0X");
    let mut last = ' ';
    let end = text.char_indices().find(|&(_, c)| {
        let is_sign = is_decimal && matches!(c, '+' | '-') && matches!(last, 'e' | 'E');
        last = c;
        !(c.is_alphanumeric() || matches!(c, '_' | '.') || (c == ':' && !is_number) || is_sign)
    });
    end.map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_would_read_otherwise_is_refused_by_its_name() {
        for (text, named) in [
            ("rate(a[99999999999d5m])", "99999999999d5m"),
            ("rate(a[1d4294967296ms])", "1d4294967296ms"),
            ("a offset 99999999999d5m", "99999999999d5m"),
            ("a offset -99999999999w", "99999999999w"),
            ("a > 99999999999d5m", "99999999999d5m"),
            ("max_over_time(a[1h:99999999999d5m])", "99999999999d5m"),
            ("increase(a[999999999999999999999999999])", "999999999999999999999999999"),
            ("increase(a[1e+300])", "1e+300"),
            ("a{b=\"]\"}[ # ]\n1e300 ]", "1e300"),
            ("a OFFSET + 0xffffffffffffffffff", "0xffffffffffffffffff"),
            ("(a) offset 1e30", "1e30"),
            ("a{x=\"\\\"\"} offset 1e30", "1e30"),
        ] {
            let said = check(text).expect_err(text);
            assert!(said.starts_with(&format!("the duration `{named}`")), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_read_as_it_is_written_passes() {
        for text in [
            "rate(a[5m])",
            "a[4294967295s]",
            "a offset 1y2w3d4h5m6s7ms",
            "a{x=\"99999999999d5m\"} + a{x='\\'99999999999d'}",
            "a # 99999999999d5m\n + 1",
            "job:99999999999d:rate[5m]",
            "a > 1e300",
            "offset + 1e300",
            "sum(offset + 1e300)",
            "a[3600]",
            "a[0x10]",
            "max_over_time(a[1h:5m])",
            "a[",
            "\"",
            "5zz",
            ".",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}
