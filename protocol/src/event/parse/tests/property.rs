//! What definitions read of an event.

use super::*;

fn property(name: &str) -> FieldRef {
    FieldRef::Property(name.to_owned())
}

fn text(event: &Event<'_>, field: &FieldRef) -> Option<String> {
    dimension_text(event, field).expect("short").map(Cow::into_owned)
}

#[test]
fn scalars_are_their_text_and_the_rest_is_null() {
    let event = parse_event(
        r#"{"event":"e","value":1.50,"user_id":7,"top":"t","both":"top","device_id":"d",
            "properties":{"s":"a\"b","n":1.50,"big":12345678901234567890,"b":true,"z":null,"a":[1],"o":{"s":"inner"},"both":"in","source":"prop","k\u0065y":"e","s2":1,"s2":2}}"#,
    )
    .expect("valid");
    for (name, expected) in [
        ("s", Some("a\"b")),
        ("n", Some("1.50")),
        ("big", Some("12345678901234567890")),
        ("b", Some("true")),
        ("z", None),
        ("a", None),
        ("o", None),
        ("missing", None),
        ("top", Some("t")),
        ("both", Some("in")),
        ("device_id", Some("d")),
        ("source", Some("prop")),
        ("key", Some("e")),
        ("s2", Some("2")),
        ("event", None),
        ("user_id", None),
    ] {
        assert_eq!(text(&event, &property(name)).as_deref(), expected, "{name}");
    }
    assert_eq!(text(&event, &FieldRef::Event).as_deref(), Some("e"));
    assert_eq!(text(&event, &FieldRef::UserId).as_deref(), Some("7"));
    assert_eq!(text(&event, &FieldRef::Value).as_deref(), Some("1.50"));
    assert_eq!(text(&event, &FieldRef::Source), None);
    assert_eq!(number(&event, &property("n")), Some(1.5));
    assert_eq!(number(&event, &property("s")), None);
    assert_eq!(number(&event, &property("b")), None);
    assert_eq!(number(&event, &FieldRef::Value), Some(1.5));
    assert_eq!(number(&event, &FieldRef::Event), None);
}

#[test]
fn a_property_too_long_for_a_dimension_is_named() {
    let raw = format!(r#"{{"event":"e","properties":{{"p":"{}"}}}}"#, "x".repeat(DIMENSION_BYTES_MAX + 1));
    let event = parse_event(&raw).expect("long properties are fine as such");
    let rejection = dimension_text(&event, &property("p")).expect_err("too long");
    assert_eq!((rejection.code, rejection.field.as_deref()), (Code::BadValue, Some("properties.p")));
}

proptest! {
    /// One pass for all names against a map of each object.
    #[test]
    fn one_pass_finds_what_a_map_holds(
        inner in proptest::collection::vec(("[a-d]{1,2}", -9i32..9), 0..8), top in proptest::collection::vec(("[a-d]{1,2}", -9i32..9), 0..8),
    ) {
        let members = |list: &[(String, i32)]| list.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect::<Vec<_>>().join(",");
        let raw = format!("{{\"event\":\"e\",\"properties\":{{{}}}{}{}}}", members(&inner), if top.is_empty() { "" } else { "," }, members(&top));
        let event = parse_event(&raw).expect("valid");
        let names: Vec<String> = ["a", "b", "ab", "cc", "d", "dd"].map(str::to_owned).to_vec();
        let mut reader = PropertyReader::default();
        reader.read(&names, &event);
        for (i, name) in names.iter().enumerate() {
            let last = |list: &[(String, i32)]| list.iter().rev().find(|(k, _)| k == name).map(|(_, v)| *v);
            let expected = last(&inner).or_else(|| last(&top));
            prop_assert_eq!(reader.number(i, &event), expected.map(f64::from));
            prop_assert_eq!(reader.text(i, &event).map(Cow::into_owned), expected.map(|v| v.to_string()));
        }
    }
}
