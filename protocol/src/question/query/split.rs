//! Comma lists whose items may hold a comma written `\,`.

/// Splits at commas without a backslash before them; backslashes stay for the item's own parser.
pub(super) fn split_list(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                items.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    items.push(&text[start..]);
    items
}

/// Takes one level of backslashes away.
pub(super) fn unescape(item: &str) -> String {
    let mut out = String::with_capacity(item.len());
    let mut chars = item.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// The inverse of [`unescape`] for an item of a list.
pub(super) fn escape(item: &str) -> String {
    item.replace('\\', "\\\\").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_comma_does_not_split() {
        assert_eq!(split_list(r"a,b\,c,d\\,e"), ["a", r"b\,c", r"d\\", "e"]);
        assert_eq!(split_list(""), [""]);
        for name in ["plain", "a,b", r"a\b", r"\,", "é,"] {
            assert_eq!(split_list(&escape(name)).len(), 1);
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
