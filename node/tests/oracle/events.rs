//! Events as odd as senders make them, each made together with what it means: nothing here reads JSON.

use std::collections::BTreeMap;

use super::calendar::{DAY, HOUR, MINUTE};
use super::random::Random;

/// A scalar or what passes for one, as text and as number where it has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scalar {
    pub text: Option<String>,
    pub number: Option<f64>,
}

/// What one event says.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    pub id: Option<String>,
    pub name: String,
    pub source: Option<String>,
    pub device: Option<String>,
    pub country: Option<String>,
    /// UTC milliseconds; of arrival when it did not say.
    pub time: i64,
    pub user: Option<String>,
    pub session: Option<String>,
    pub value: Scalar,
    pub properties: BTreeMap<String, Scalar>,
}

/// An event as it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub json: String,
    pub fact: Fact,
    pub has_time: bool,
    /// Code of what is wrong with it, whenever it arrives.
    pub refused: Option<&'static str>,
}

pub const NAMES: [&str; 9] =
    ["page_view", "signup", "départ ✈", r"a,b|c:d\e", "\"quoted\" 'name'", "x", "🦀 launch", "  spaces  ", "page_views"];
pub const SOURCES: [Option<&str>; 9] =
    [None, Some("web"), Some("web"), Some("api"), Some(""), Some("wéb"), Some("a|b,c:d"), Some(r"back\slash"), Some("line\nbreak, \"q\"")];
pub const DEVICES: [Option<&str>; 6] = [None, Some("mobile"), Some("mobile"), Some("desktop"), Some("tv, big"), Some("null")];
pub const COUNTRIES: [Option<&str>; 7] = [None, Some("US"), Some("DE"), Some("de"), Some("日本"), Some("!US"), Some("U\u{301}S")];
/// `source` and `country` as properties are not the fields of that name.
pub const PROPERTIES: [&str; 9] = ["plan", "größe", "country", "n", "flag", "a,b", "c:d|e", "deep.name", "amount"];

const NUMBERS: [(&str, f64); 19] = [
    ("0", 0.0),
    ("-0.0", 0.0),
    ("1", 1.0),
    ("1.0", 1.0),
    ("1e3", 1000.0),
    ("-17.25", -17.25),
    ("0.1", 0.1),
    ("0.30000000000000004", 0.300_000_000_000_000_04),
    ("9007199254740993", 9_007_199_254_740_992.0),
    ("12345678901234567890", 12_345_678_901_234_567_000.0),
    ("1.7976931348623157e308", f64::MAX),
    ("1e308", 1e308),
    ("-1e308", -1e308),
    ("5e-324", 5e-324),
    ("-2.2250738585072014e-308", -2.225_073_858_507_201_4e-308),
    ("1e-9", 1e-9),
    ("1e100", 1e100),
    ("-1E+2", -100.0),
    ("2.50000", 2.5),
];

fn owned(text: &Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// A number as a sender may write it. Extremes are kept rare, so that sums mean something.
fn number(random: &mut Random, extremes: bool) -> (String, f64) {
    match random.below(8) {
        0 if extremes => {
            let (text, number) = *random.pick(&NUMBERS);
            (text.to_owned(), number)
        }
        0 | 1 => {
            let (text, number) = NUMBERS[random.below(8)];
            (text.to_owned(), number)
        }
        2..=4 => {
            let n = random.between(-50, 1_000);
            (n.to_string(), n as f64)
        }
        _ => {
            let n = random.between(0, 400_000);
            (format!("{}.{:02}", n / 100, n % 100), n as f64 / 100.0)
        }
    }
}

/// JSON text of a string, escaped more than it must be now and then.
pub fn json_string(random: &mut Random, text: &str) -> String {
    let eager = random.one_in(12);
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 || (eager && random.one_in(2)) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}")));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn property(random: &mut Random, extremes: bool) -> (String, Scalar) {
    let text = |json: &str| (json.to_owned(), Scalar { text: Some(json.to_owned()), number: None });
    match random.below(10) {
        0 => ("null".to_owned(), Scalar::default()),
        1 => text("true"),
        2 => text("false"),
        3 => ((*random.pick(&["[]", "[1,\"a\"]", "{}", "{\"n\":{\"plan\":1}}"])).to_owned(), Scalar::default()),
        4..=6 => {
            let (json, number) = number(random, extremes);
            (json.clone(), Scalar { text: Some(json), number: Some(number) })
        }
        _ => {
            let value = *random.pick(&["free", "pro", "", "5", "true", "ü, \"x\"", r"a|b\c:d", "null"]);
            (json_string(random, value), Scalar { text: Some(value.to_owned()), number: None })
        }
    }
}

/// A moment near borders of windows, days and retention.
fn time(random: &mut Random, now: i64, kept: &[i64]) -> i64 {
    let near = |random: &mut Random, at: i64| at + random.between(-3, 4) * *random.pick(&[1, 1, 500, MINUTE / 2]);
    match random.below(16) {
        0..=3 => now - random.between(0, 10 * MINUTE),
        4..=6 => now - random.between(0, 3 * HOUR),
        7..=9 => now - random.between(0, 3 * DAY),
        10 => now - random.between(0, 70 * DAY),
        case @ 11..=13 => {
            let (back, unit) = [(2 * HOUR, MINUTE), (2 * DAY, HOUR), (9 * DAY, DAY)][case - 11];
            let border = (now - random.between(0, back)).div_euclid(unit) * unit;
            near(random, border)
        }
        14 if !kept.is_empty() => {
            let edge = now - random.pick(kept);
            near(random, edge.div_euclid(HOUR) * HOUR) + random.between(-1, 2) * *random.pick(&[0, MINUTE, HOUR, DAY])
        }
        _ => now + random.between(0, 65 * MINUTE),
    }
}

/// A timestamp as JSON, and what it says after rounding to what its form can say.
fn time_json(random: &mut Random, time: i64) -> (String, i64) {
    let rfc3339 = |local: i64, digits: usize, offset: &str| {
        let (date, clock) = (super::calendar::date_text(local.div_euclid(DAY)), local.rem_euclid(DAY));
        let fraction = ["".to_owned(), format!(".{:03}", clock % 1_000), format!(".{:03}999", clock % 1_000)][digits].clone();
        format!("\"{date}T{:02}:{:02}:{:02}{fraction}{offset}\"", clock / HOUR, clock / MINUTE % 60, clock / 1_000 % 60)
    };
    let whole = time.div_euclid(1_000) * 1_000;
    match random.below(8) {
        0 => (format!("{}", whole / 1_000), whole),
        1 => (format!("{}.{:03}", time.div_euclid(1_000), time.rem_euclid(1_000)), time),
        2 => (rfc3339(whole, 0, "Z"), whole),
        3 => (rfc3339(time + 5 * HOUR + 45 * MINUTE, 1, "+05:45"), time),
        4 => (rfc3339(time - 8 * HOUR, 2, "-08:00"), time),
        _ => (format!("{time}"), time),
    }
}

fn identity(random: &mut Random, prefix: &str, many: usize) -> (Option<String>, Option<String>) {
    let n = random.below(many);
    match random.below(10) {
        0 => (None, None),
        1 => (Some("null".to_owned()), None),
        2 => (Some("\"\"".to_owned()), None),
        3 | 4 => (Some(n.to_string()), Some(n.to_string())),
        5 => (Some(format!("\"{n}\"")), Some(n.to_string())),
        _ => (Some(json_string(random, &format!("{prefix}é{n}"))), Some(format!("{prefix}é{n}"))),
    }
}

pub struct Maker {
    pub extremes: bool,
    pub users: usize,
    /// How long each grain is kept, in milliseconds.
    pub kept: Vec<i64>,
    next_id: u64,
}

impl Maker {
    pub fn new(extremes: bool, users: usize, kept: Vec<i64>) -> Self {
        Self { extremes, users, kept, next_id: 0 }
    }

    pub fn event(&mut self, random: &mut Random, now: i64) -> Sent {
        let mut fact = Fact {
            name: (*random.pick(&NAMES)).to_owned(),
            source: owned(random.pick(&SOURCES)),
            device: owned(random.pick(&DEVICES)),
            country: owned(random.pick(&COUNTRIES)),
            ..Fact::default()
        };
        let mut members: Vec<(String, String)> = Vec::new();
        let mut refused = None;
        self.next_id += 1;
        if !random.one_in(12) {
            // A few ids are used again and again: with the same name, source, device and country that is the same event.
            fact.id = Some(if random.one_in(6) { format!("again {}", random.below(20)) } else { format!("id-{}-é", self.next_id) });
        }
        let id_json = fact.id.as_ref().map(|id| json_string(random, id));
        members.extend(id_json.map(|id| ("event_id".to_owned(), id)));
        let name = json_string(random, &fact.name.clone());
        members.push((if random.one_in(4) { "event_name" } else { "event" }.to_owned(), name));
        let has_time = !random.one_in(15);
        fact.time = now;
        if has_time {
            let at = time(random, now, &self.kept);
            let (json, said) = time_json(random, at);
            fact.time = said;
            members.push(("timestamp".to_owned(), json));
        }
        for (aliases, text) in [
            (["source", "_metadata"], &fact.source),
            (["device_type", "device"], &fact.device),
            (["country_code", "country"], &fact.country),
        ] {
            let Some(text) = text else {
                if random.one_in(3) {
                    members.push((aliases[0].to_owned(), "null".to_owned()));
                }
                continue;
            };
            let json = json_string(random, text);
            match (random.below(4), aliases[1]) {
                (0, "_metadata") => members.push(("_metadata".to_owned(), format!("{{\"source\": {json}, \"sdk_version\": \"1\"}}"))),
                (0, alias) => members.push((alias.to_owned(), json)),
                // The field beats its alias, and an earlier member of the same name is overwritten.
                (1, alias) if alias != "_metadata" => {
                    members.extend([(alias.to_owned(), "\"XX\"".to_owned()), (aliases[0].to_owned(), json)])
                }
                _ => members.push((aliases[0].to_owned(), json)),
            }
        }
        let (user, session) = (identity(random, "u", self.users), identity(random, "s", self.users * 2));
        members.extend(user.0.map(|json| ("user_id".to_owned(), json)));
        members.extend(session.0.map(|json| ("session_id".to_owned(), json)));
        (fact.user, fact.session) = (user.1, session.1);
        if !random.one_in(4) {
            let (json, value) = number(random, self.extremes);
            fact.value = Scalar { text: Some(json.clone()), number: Some(value) };
            members.push(("value".to_owned(), json));
        } else if random.one_in(2) {
            members.push(("value".to_owned(), "null".to_owned()));
        }
        self.properties(random, &mut fact, &mut members);
        if random.one_in(40) {
            let (member, json, code) = *random.pick(&[
                ("value", "\"5\"", "wrong_type"),
                ("value", "1e999", "bad_value"),
                ("timestamp", "\"yesterday\"", "bad_timestamp"),
                ("properties", "[]", "wrong_type"),
                ("user_id", "1.5", "wrong_type"),
                ("session_id", "{}", "wrong_type"),
                ("event_id", "\"\"", "bad_value"),
                ("source", "7", "wrong_type"),
            ]);
            members.retain(|(name, _)| name != member);
            members.push((member.to_owned(), json.to_owned()));
            refused = Some(code);
        }
        Sent { json: render(random, members), fact, has_time, refused }
    }

    fn properties(&self, random: &mut Random, fact: &mut Fact, members: &mut Vec<(String, String)>) {
        let mut inside = Vec::new();
        for name in PROPERTIES {
            let (json, scalar) = property(random, self.extremes);
            let is_field = name == "country";
            match random.below(5) {
                0 | 1 => inside.push((name.to_owned(), json)),
                2 if !is_field => members.push((name.to_owned(), json)),
                // What is in `properties` beats a top-level member of the name.
                3 if !is_field => {
                    members.push((name.to_owned(), "\"outside\"".to_owned()));
                    inside.push((name.to_owned(), json));
                }
                _ => continue,
            }
            fact.properties.insert(name.to_owned(), scalar);
        }
        if !inside.is_empty() || random.one_in(3) {
            members.push(("properties".to_owned(), render(random, inside)));
        }
    }
}

/// An object with its members in any order and white space where it may be; of one name, a member that is overwritten stands first now and then.
fn render(random: &mut Random, mut members: Vec<(String, String)>) -> String {
    // Members of one name keep their order.
    let doubled = members.iter().enumerate().any(|(i, (name, _))| members[..i].iter().any(|(n, _)| n == name));
    if !doubled {
        random.shuffle(&mut members);
        if !members.is_empty() && random.one_in(10) {
            let (name, _) = random.pick(&members).clone();
            members.insert(0, (name, (*random.pick(&["\"overwritten\"", "[1]", "12.5", "null"])).to_owned()));
        }
    }
    let space = *random.pick(&["", "", "", " ", "\t", "  "]);
    let members: Vec<String> = members.iter().map(|(name, json)| format!("{}{space}:{space}{json}", json_string(random, name))).collect();
    format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
}
