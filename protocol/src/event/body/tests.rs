use proptest::prelude::*;

use super::*;
use crate::event::RejectCode as Code;
use crate::limits::JSON_DEPTH_MAX;

const LIMITS: BodyLimits = BodyLimits { events_max: 100, event_bytes_max: 64, decoded_bytes_max: 1 << 20, depth: JSON_DEPTH_MAX };

/// The event's name, or why not and the bytes kept.
type Item = Result<String, (Code, Vec<u8>)>;

/// What came out, item by item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen(Vec<(u32, Item)>);

impl EventSink for Seen {
    fn event(&mut self, index: u32, event: &Event<'_>) {
        self.0.push((index, Ok(event.name.to_string())));
    }

    fn reject(&mut self, index: u32, rejection: Rejection, raw: &[u8]) {
        self.0.push((index, Err((rejection.code, raw.to_vec()))));
    }
}

fn run<'c>(format: BodyFormat, limits: BodyLimits, chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<(u32, Seen), Problem> {
    let (mut parser, mut seen) = (BodyParser::new(format, limits), Seen::default());
    for chunk in chunks {
        parser.feed(chunk, &mut seen)?;
    }
    Ok((parser.finish(&mut seen)?, seen))
}

fn whole(format: BodyFormat, body: impl AsRef<[u8]>) -> Result<(u32, Seen), Problem> {
    run(format, LIMITS, [body.as_ref()])
}

/// One letter an item: the name of an event, or the initial of its rejection in capitals.
fn outline(seen: &Seen) -> String {
    let letter = |(_, item): &(u32, Item)| match item {
        Ok(name) => name.clone(),
        Err((code, _)) => format!("<{}>", code.as_str()),
    };
    assert!(seen.0.iter().enumerate().all(|(i, (index, _))| *index == i as u32), "in order, none twice: {seen:?}");
    seen.0.iter().map(letter).collect()
}

fn outcome(format: BodyFormat, body: &str) -> Result<String, (ErrorCode, String)> {
    whole(format, body).map(|(n, seen)| (assert_eq!(n as usize, seen.0.len()), outline(&seen)).1).map_err(|p| (p.code, p.detail))
}

#[test]
fn arrays_single_objects_and_lines_hold_events() {
    use BodyFormat::{Json, NdJson};
    let bom = '\u{feff}';
    assert_eq!(outcome(Json, r#"[{"event":"a"},{"event":"b"}]"#).as_deref(), Ok("ab"));
    assert_eq!(outcome(Json, &format!("{bom} \r\n[ {{\"event\":\"a\"}}\t, {{\"event\":\"b\"}} ] \n")).as_deref(), Ok("ab"));
    assert_eq!(outcome(Json, r#" {"event":"a"} "#).as_deref(), Ok("a"));
    assert_eq!(outcome(Json, " [ ] ").as_deref(), Ok(""));
    assert_eq!(outcome(NdJson, &format!("{bom}\r\n{{\"event\":\"a\"}}\r\n\n  \n {{\"event\":\"b\"}} ")).as_deref(), Ok("ab"));
}

#[test]
fn bad_items_are_rejected_one_by_one() {
    use BodyFormat::{Json, NdJson};
    let deep = format!("{{\"event\":\"e\",\"x\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let limits = BodyLimits { event_bytes_max: 1_000, ..LIMITS };
    let array = format!(
        r#"[42,{{"event":"a"}},null,"x, ]",[{{}}],{{}},{{"event":"\ud800"}},{{"event":"e","value":1e999}},{deep},{{"\u0065vent":"b"}}]"#
    );
    let (count, seen) = run(Json, limits, [array.as_bytes()]).expect("the array is well-formed");
    let expected = "<not_an_object>a<not_an_object><not_an_object><not_an_object><missing_field><bad_json><bad_value><too_deep>b";
    assert_eq!((count, outline(&seen).as_str()), (10, expected));
    assert_eq!(seen.0[3].1, Err((Code::NotAnObject, br#""x, ]""#.to_vec())), "kept as sent");

    let lines = b"{\"event\":\"a\"}\nnope\n{\"event\":\"b\"\n\xff\n[]\n{\"event\":\"c\"} {}\n{\"event\":\"d\"}";
    let (_, seen) = whole(NdJson, lines).expect("lines stand alone");
    assert_eq!(outline(&seen), "a<bad_json><bad_json><bad_json><not_an_object><bad_json>d");
    assert_eq!(seen.0[3].1, Err((Code::BadJson, b"\xff".to_vec())));
    assert_eq!(outcome(Json, "42").as_deref(), Ok("<not_an_object>"));
    assert_eq!(outcome(Json, " \"x\" ").as_deref(), Ok("<not_an_object>"));
}

#[test]
fn a_line_that_is_not_utf_8_names_the_place_in_what_is_kept_of_it() {
    #[derive(Default)]
    struct Details(Vec<String>);
    impl EventSink for Details {
        fn event(&mut self, _: u32, _: &Event<'_>) {}

        fn reject(&mut self, _: u32, rejection: Rejection, raw: &[u8]) {
            self.0.push(format!("{} of {}", rejection.detail, raw.len()));
        }
    }
    let body = b" \t{\"event\":\"\xff\"}\n";
    for size in 1..=body.len() {
        let (mut parser, mut details) = (BodyParser::new(BodyFormat::NdJson, LIMITS), Details::default());
        body.chunks(size).for_each(|chunk| parser.feed(chunk, &mut details).expect("taken"));
        assert_eq!(parser.finish(&mut details), Ok(1));
        assert_eq!(details.0, ["byte 10: not UTF-8 of 13"], "by {size}");
    }
}

#[test]
fn a_broken_array_is_refused_whole_with_the_place() {
    use BodyFormat::Json;
    for (body, place) in [
        (r#"[{"event":"a"} {"event":"b"}]"#, "byte 15: expected `,` or `]`"),
        (r#"[{"event":"a"},]"#, "byte 15: expected a value"),
        (r#"[,]"#, "byte 1: expected a value"),
        (r#"[{"event":"a"}"#, "byte 14: the body ends within the array"),
        (r#"[{"event":"a""#, "byte 13: the body ends within the item that begins at byte 1"),
        (r#"[{"event":"a"}] x"#, "byte 16: trailing characters"),
        (r#"{"event":"a"}]"#, "byte 13: trailing characters"),
        (r#"[{"event":tru}]"#, "byte 13: expected ident"),
        (r#"[{"event":"a"},nope]"#, "byte 16: expected ident"),
        ("hello", "byte 0: expected value"),
        ("[{\"event\":\"a\"},é]", "byte 15: expected value"),
    ] {
        assert_eq!(outcome(Json, body), Err((ErrorCode::BadJson, place.to_owned())), "{body}");
    }
    let lines = outcome(Json, "{\"event\":\"a\"}\n{\"event\":\"b\"}").expect_err("lines are not one JSON text");
    assert!(lines.1.contains("byte 14") && lines.1.contains("application/x-ndjson"), "{lines:?}");
    for bytes in [&b"[{\"event\":\"\xff\"}]"[..], b"[\xff]", b"\xff", b"[{\"event\":\"a\"}]\xc3"] {
        assert_eq!(whole(Json, bytes).expect_err("not UTF-8").code, ErrorCode::BadJson);
    }
}

#[test]
fn limits_are_on_items_bytes_and_the_decoded_body() {
    use BodyFormat::{Json, NdJson};
    let limits = BodyLimits { events_max: 2, ..LIMITS };
    for (format, two, three) in [(Json, "[1,2]", "[1,2,3]"), (NdJson, "1\n2\n\n", "1\n2\n3\n")] {
        assert_eq!(run(format, limits, [two.as_bytes()]).expect("within the limit").0, 2);
        let problem = run(format, limits, [three.as_bytes()]).expect_err("one too many");
        assert_eq!((problem.code, problem.limit), (ErrorCode::TooManyEvents, Some(2)));
        let limits = BodyLimits { decoded_bytes_max: two.len() as u64, ..LIMITS };
        assert!(run(format, limits, two.as_bytes().chunks(2)).is_ok());
        let problem = run(format, limits, three.as_bytes().chunks(2)).expect_err("too long");
        assert_eq!((problem.code, problem.limit), (ErrorCode::BodyTooLarge, Some(two.len() as u64)));
    }
    for format in [Json, NdJson] {
        for empty in ["", " \r\n\n", "\u{feff}"] {
            assert_eq!(whole(format, empty).expect_err("empty").code, ErrorCode::EmptyBody);
        }
    }
}

#[test]
fn a_too_large_item_is_skipped_and_its_beginning_kept() {
    use BodyFormat::{Json, NdJson};
    let limits = BodyLimits { event_bytes_max: 5_000, decoded_bytes_max: u64::MAX, ..LIMITS };
    let exact = |bytes: usize| format!(r#"{{"event":"x","p":"{}"}}"#, "]".repeat(bytes - 20));
    let (fits, over, huge) = (exact(5_000), exact(5_001), exact(1_000_000));
    assert_eq!(fits.len(), 5_000);
    for (format, body) in [
        (Json, format!("[{fits},{over},{huge},{fits}]")),
        (NdJson, format!("{fits}\n{over}\n{huge}\r\n{fits}")),
        (NdJson, format!("{fits}\r\n{over}\r\n{huge}\n{fits}\r\n")),
    ] {
        for size in [usize::MAX, 4_096, 1_000] {
            let (_, seen) = run(format, limits, body.as_bytes().chunks(size)).expect("others go on");
            assert_eq!(outline(&seen), "x<too_large><too_large>x", "{format:?} by {size}");
            assert_eq!(seen.0[2].1, Err((Code::TooLarge, huge.as_bytes()[..REJECTED_BYTES_KEPT].to_vec())));
        }
    }
}

#[test]
fn what_is_carried_over_is_bounded() {
    let limits = BodyLimits { event_bytes_max: 1_000, decoded_bytes_max: u64::MAX, ..LIMITS };
    for (format, begin) in [(BodyFormat::Json, &b"[{\"x\":\""[..]), (BodyFormat::NdJson, b"{\"x\":\"")] {
        let (mut parser, mut seen) = (BodyParser::new(format, limits), Seen::default());
        parser.feed(begin, &mut seen).expect("begun");
        for _ in 0..100 {
            parser.feed(&[b'x'; 999], &mut seen).expect("goes on");
            let carried = match &parser.splitter {
                Splitter::Array(array) => array.carried_bytes(),
                Splitter::Lines(lines) => lines.carried_bytes(),
            };
            assert!(carried <= 2 * 1_002, "{carried}");
        }
    }
}

/// Items and what lies between them, mostly well-formed.
fn body() -> impl Strategy<Value = (BodyFormat, Vec<u8>)> {
    let item = prop_oneof![
        6 => "[a-cé🦀]{1,3}".prop_map(|name| format!(r#"{{"event":"{name}"}}"#)),
        2 => "[a-c]{0,2}".prop_map(|text| format!(r#"{{"event":"e", "p":["{text}\"]}}",{{}}, -1.5 , "é\\"]}}"#)),
        1 => Just(r#"{"event":"e","\u0070":[[[[[[[[]]]]]]]]}"#.to_owned()),
        1 => (50usize..80).prop_map(|n| format!(r#"{{"event":"{}"}}"#, "n".repeat(n - 12))),
        1 => proptest::sample::select(&["42", "null", "\"a,b\"", "[{},\"]\"]", "{}", "true"][..]).prop_map(str::to_owned),
        1 => (60usize..70).prop_map(|n| "7".repeat(n)),
    ];
    let odd = proptest::sample::select(
        &["", "", "", "", "", "", "nope", "{]", "\"", "}", "]", ",", "{\"event\":\"\\ud800\"}", "{\"event\":\"a\"}x"][..],
    );
    let space = proptest::sample::select(&["", "", " ", "\t", " \r\n", "\u{feff}"][..]);
    let items = proptest::collection::vec((item, odd, space), 0..8);
    let format = prop_oneof![Just(BodyFormat::Json), Just(BodyFormat::NdJson)];
    let damage = proptest::option::weighted(0.15, any::<(u16, u8)>());
    (format, items, any::<bool>(), damage).prop_map(|(format, items, with_bom, damage)| {
        let between = if format == BodyFormat::Json { "," } else { "\n" };
        let items: Vec<String> = items
            .iter()
            .enumerate()
            .map(|(i, (item, odd, space))| format!("{item}{}{space}", if i % 3 == 2 { odd } else { &"" }))
            .collect();
        let mut text = items.join(between);
        if format == BodyFormat::Json {
            text = format!("[{text}]");
        }
        let mut bytes = if with_bom { format!("\u{feff}{text}") } else { text }.into_bytes();
        if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        (format, bytes)
    })
}

/// Line by line with everything in memory.
fn naive_lines(body: &[u8]) -> String {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    let mut out = String::new();
    for line in body.split(|&b| b == b'\n') {
        let start = line.iter().position(|b| !b" \t\r".contains(b)).unwrap_or(line.len());
        let line = &line[start..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            out += &match std::str::from_utf8(line) {
                _ if line.len() > LIMITS.event_bytes_max => "<too_large>".to_owned(),
                Err(_) => "<bad_json>".to_owned(),
                Ok(text) => naive_event(text),
            };
        }
    }
    out
}

fn naive_event(text: &str) -> String {
    match crate::event::parse::parse_event(text) {
        Ok(event) => event.name.into_owned(),
        Err(rejection) => format!("<{}>", rejection.code.as_str()),
    }
}

/// The array as serde_json splits it; `None` when it is no array by its grammar.
fn naive_array(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body.strip_prefix(BOM).unwrap_or(body)).ok()?;
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(body).ok()?;
    let outcome = |item: &str| if item.len() > LIMITS.event_bytes_max { "<too_large>".to_owned() } else { naive_event(item) };
    Some(items.iter().map(|item| outcome(item.get())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn bodies_are_split_as_by_a_naive_reader((format, body) in body()) {
        let ours = whole(format, &body);
        match format {
            BodyFormat::NdJson => match ours {
                Ok((_, seen)) => prop_assert_eq!(outline(&seen), naive_lines(&body)),
                Err(problem) => {
                    prop_assert_eq!(problem.code, ErrorCode::EmptyBody);
                    prop_assert_eq!(naive_lines(&body), "");
                }
            },
            BodyFormat::Json => match (ours, naive_array(&body)) {
                (Ok((_, seen)), Some(expected)) => prop_assert_eq!(outline(&seen), expected),
                // Within an item that is too large nothing is checked; one item alone is no array.
                (Ok((_, seen)), None) => prop_assert!(outline(&seen).contains("<too_large>") || seen.0.len() <= 1, "{:?}", seen),
                (Err(problem), expected) => prop_assert!(expected.is_none(), "{:?}, expected {:?}", problem, expected),
            },
        }
    }

    #[test]
    fn where_a_body_is_cut_does_not_matter((format, body) in body(), cuts in proptest::collection::vec(0usize..40, 0..60)) {
        let expected = whole(format, &body);
        let mut chunks = Vec::new();
        let mut rest = &body[..];
        for cut in cuts {
            let (chunk, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        chunks.push(rest);
        prop_assert_eq!(run(format, LIMITS, chunks), expected.clone());
        prop_assert_eq!(run(format, LIMITS, body.chunks(1)), expected);
    }
}
