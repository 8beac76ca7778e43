//! Request bodies: what the door takes, refuses and encodes, against [`oracle`], whole and in pieces.

mod encoded;
mod oracle;
mod times;

use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits, BodyParser, EventSink};
use tallymesh_protocol::event::{Event, RejectCode, Rejection};
use tallymesh_protocol::limits::JSON_DEPTH_MAX;

use crate::input::Input;
use crate::memory::peak_of;
use oracle::{Expected, Facts};

/// Memory that one body may take beside its own bytes and what the sink keeps of it, in bytes.
const MEMORY_BYTES_MAX: usize = 256 << 10;

const LIMITS: [BodyLimits; 4] = [
    BodyLimits { events_max: 10_000, event_bytes_max: 1 << 20, decoded_bytes_max: 1 << 30, depth: JSON_DEPTH_MAX },
    BodyLimits { events_max: 4, event_bytes_max: 64, decoded_bytes_max: 1 << 30, depth: JSON_DEPTH_MAX },
    BodyLimits { events_max: 10_000, event_bytes_max: 200, decoded_bytes_max: 1 << 30, depth: 3 },
    BodyLimits { events_max: 10_000, event_bytes_max: 1 << 20, decoded_bytes_max: 100, depth: JSON_DEPTH_MAX },
];

/// One item: what was read of it, or why not with the bytes kept.
type Item = Result<Facts, (Rejection, Vec<u8>)>;

#[derive(Default)]
struct Seen {
    items: Vec<Item>,
}

impl EventSink for Seen {
    fn event(&mut self, index: u32, event: &Event<'_>) {
        assert_eq!(index as usize, self.items.len(), "in order, none twice");
        self.items.push(Ok(Facts::of(event)));
    }

    fn reject(&mut self, index: u32, rejection: Rejection, raw: &[u8]) {
        assert_eq!(index as usize, self.items.len(), "in order, none twice");
        self.items.push(Err((rejection, raw.to_vec())));
    }
}

/// First byte: bit 0 the format, bits 1-2 the limits, the others the size of small pieces; then where the body is cut in two; then the body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let format = if options & 1 == 0 { BodyFormat::Json } else { BodyFormat::NdJson };
    let limits = LIMITS[usize::from(options >> 1) % LIMITS.len()];
    let (step, cut) = (1 + usize::from(options >> 3), input.short());
    let body = input.rest();

    let whole = read(format, limits, [body]);
    let (first, second) = body.split_at(cut % (body.len() + 1));
    same(&whole, &read(format, limits, [first, second]), "in two pieces");
    same(&whole, &read(format, limits, body.chunks(step)), "in small pieces");
    compare(&whole, &oracle::expect(format, limits, body), body.len() as u64 > limits.decoded_bytes_max);
    encoded::check(format, limits, body);
}

fn read<'c>(format: BodyFormat, limits: BodyLimits, chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<Item>, Problem> {
    let mut bytes = 0;
    let ((outcome, seen), peak) = peak_of(|| {
        let (mut parser, mut seen) = (BodyParser::new(format, limits), Seen::default());
        let outcome = chunks.into_iter().try_for_each(|chunk| {
            bytes += chunk.len();
            parser.feed(chunk, &mut seen)
        });
        (outcome.and_then(|()| parser.finish(&mut seen)), seen)
    });
    assert!(peak <= MEMORY_BYTES_MAX + 64 * bytes, "{peak} bytes of memory for a body of {bytes}");
    let count = outcome?;
    assert_eq!(count as usize, seen.items.len());
    Ok(seen.items)
}

fn same(whole: &Result<Vec<Item>, Problem>, pieces: &Result<Vec<Item>, Problem>, how: &str) {
    let is_too_large = |outcome: &Result<Vec<Item>, Problem>| matches!(outcome, Err(p) if p.code == ErrorCode::BodyTooLarge);
    // Pieces before the one that is too much may be refused for another reason first.
    if is_too_large(whole) {
        assert!(pieces.is_err(), "{how}: taken, though the body is too large");
        return;
    }
    assert_eq!(whole, pieces, "{how}");
}

fn compare(whole: &Result<Vec<Item>, Problem>, expected: &Expected, is_over_limit: bool) {
    let items = match whole {
        Err(problem) if is_over_limit => return assert_eq!(problem.code, ErrorCode::BodyTooLarge),
        Err(problem) => match expected {
            Expected::Refused(codes) => return assert!(codes.contains(&problem.code), "{problem:?}, expected one of {codes:?}"),
            Expected::Items(items) => panic!("refused: {problem:?}, expected {items:?}"),
        },
        Ok(items) => items,
    };
    assert!(!is_over_limit, "a body over the limit was taken");
    let expected = match expected {
        Expected::Items(items) => items,
        // Within an item that is too large nothing is checked.
        Expected::Refused(_) if items.iter().any(|i| matches!(i, Err((r, _)) if r.code == RejectCode::TooLarge)) => return,
        Expected::Refused(codes) => panic!("taken as {items:?}, expected one of {codes:?}"),
    };
    assert_eq!(items.len(), expected.len(), "{items:?}, expected {expected:?}");
    for (item, expected) in items.iter().zip(expected) {
        match (item, expected) {
            (Ok(facts), Ok(expected)) => assert_eq!(facts, expected),
            (Err((rejection, raw)), Err((code, expected_raw))) => {
                assert_eq!(rejection.code, *code, "{rejection:?} of {:?}", String::from_utf8_lossy(raw));
                assert_eq!(raw, expected_raw, "kept as sent");
                assert!(!rejection.detail.is_empty());
            }
            (Ok(facts), Err(expected)) => panic!("took {facts:?}, expected {expected:?}"),
            (Err(rejected), Ok(expected)) => panic!("rejected {rejected:?}, expected {expected:?}"),
        }
    }
}
