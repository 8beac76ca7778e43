use std::io::Write;

use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("in memory")
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new().content_checksum(true).block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

type Encode = fn(&[u8]) -> Vec<u8>;

const ALL: [(Encoding, Encode); 3] = [(Encoding::Gzip, gzip), (Encoding::Zstd, zstd_frame), (Encoding::Lz4, lz4)];

fn decoded(encoding: Encoding, body: Vec<Bytes>) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    decode(encoding, body, &mut |window| {
        assert!(!window.is_empty() && window.len() <= DECODE_WINDOW_BYTES_MAX);
        out.extend_from_slice(window);
        Ok(())
    })?;
    Ok(out)
}

fn in_pieces(bytes: &[u8], piece: usize) -> Vec<Bytes> {
    bytes.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect()
}

/// Text that compresses to several blocks.
fn sample() -> Vec<u8> {
    (0..6_000u64).flat_map(|i| format!("{{\"event\":\"e{}\"}}\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes()).collect()
}

#[test]
fn members_and_frames_in_a_row_read_as_one_body_however_it_is_cut_into_pieces() {
    let text = sample();
    let (head, tail) = text.split_at(text.len() / 3);
    for (encoding, encode) in ALL {
        let body = [encode(head), encode(b""), encode(tail)].concat();
        for piece in [1, 7, 4_096, usize::MAX] {
            assert_eq!(decoded(encoding, in_pieces(&body, piece)).expect("valid"), text, "{encoding:?} in pieces of {piece}");
        }
    }
    assert_eq!(decoded(Encoding::Identity, in_pieces(&text, 1_000)).expect("valid"), text);
}

#[test]
fn a_cut_stream_is_never_taken_for_a_whole_one() {
    let text = sample();
    for (encoding, encode) in ALL {
        let one = encode(&text);
        let body = [one.clone(), encode(b"more\n")].concat();
        let cuts = (1..one.len().min(600)).chain((600..one.len()).step_by(97)).chain(one.len() + 1..body.len());
        for cut in cuts {
            let problem = decoded(encoding, vec![Bytes::copy_from_slice(&body[..cut])]).expect_err("cut");
            assert_eq!(problem.code, ErrorCode::BadEncoding, "{encoding:?} cut at {cut} of {}", body.len());
        }
    }
}

#[test]
fn an_lz4_stream_that_ends_between_blocks_is_cut_off() {
    let body = lz4(&sample());
    let first_block = 7 + 4 + (u32::from_le_bytes([body[7], body[8], body[9], body[10]]) & 0x7FFF_FFFF) as usize;
    let problem = decoded(Encoding::Lz4, vec![Bytes::copy_from_slice(&body[..first_block])]).expect_err("cut");
    assert!(problem.detail.contains("ends too early"), "{}", problem.detail);
}

#[test]
fn skippable_frames_are_passed_over() {
    let skip = |bytes: &[u8]| [&0x184D_2A53u32.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    for (encoding, encode) in [ALL[1], ALL[2]] {
        let body = [skip(b"one"), encode(b"a\n"), skip(&[7; 70_000]), skip(b""), encode(b"b\n"), skip(b"end")].concat();
        for piece in [3, usize::MAX] {
            assert_eq!(decoded(encoding, in_pieces(&body, piece)).expect("valid"), b"a\nb\n", "{encoding:?}");
        }
        assert_eq!(decoded(encoding, vec![skip(b"nothing else").into()]).expect("valid"), b"", "{encoding:?}");
        assert!(decoded(encoding, vec![skip(b"cut")[..9].to_vec().into()]).is_err(), "{encoding:?}");
    }
}

#[test]
fn a_bomb_is_stopped_by_whoever_counts() {
    let zeroes = vec![0u8; 50 << 20];
    for (encoding, encode) in ALL {
        let body = encode(&zeroes);
        assert!(body.len() < 1 << 20);
        let mut seen = 0;
        let stop = decode(encoding, vec![body.into()], &mut |window| {
            seen += window.len();
            if seen > 1 << 20 { Err(Problem::new(ErrorCode::BodyTooLarge, "enough")) } else { Ok(()) }
        });
        assert_eq!(stop.expect_err("stopped").code, ErrorCode::BodyTooLarge);
        assert!(seen <= (1 << 20) + DECODE_WINDOW_BYTES_MAX, "{encoding:?} went on to {seen}");
    }
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("encoder");
    encoder.window_log(ZSTD_WINDOW_LOG_MAX + 3).expect("set");
    encoder.long_distance_matching(true).expect("set");
    encoder.write_all(&vec![1; 40 << 20]).expect("in memory");
    let body = encoder.finish().expect("in memory");
    assert_eq!(decoded(Encoding::Zstd, vec![body.into()]).expect_err("window").code, ErrorCode::BadEncoding);
}

#[test]
fn too_many_lz4_frames_are_refused() {
    let body = lz4(b"").repeat(FRAMES_PAST_THE_LIMIT);
    assert!(decoded(Encoding::Lz4, vec![body.into()]).expect_err("too many").detail.contains("frames"));
}

const FRAMES_PAST_THE_LIMIT: usize = 4_097;

#[test]
fn encodings_are_named_without_regard_to_case() {
    for (header, encoding) in
        [(None, Encoding::Identity), (Some("GZIP"), Encoding::Gzip), (Some(" zstd "), Encoding::Zstd), (Some("lz4"), Encoding::Lz4)]
    {
        assert_eq!(Encoding::parse(header), Ok(encoding));
    }
    for header in ["br", "deflate", "gzip, zstd"] {
        assert_eq!(Encoding::parse(Some(header)).expect_err(header).code, ErrorCode::UnsupportedEncoding);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_bytes_are_an_error_or_decode_but_never_panic(
        which in 0..3usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), piece in 1..5_000usize
    ) {
        let (encoding, encode) = ALL[which];
        let mut body = encode(&sample()[..20_000]);
        for (at, to) in flips {
            let at = at.index(body.len());
            body[at] = to;
        }
        let mut total = 0;
        let _ = decode(encoding, in_pieces(&body, piece), &mut |window| {
            total += window.len();
            if total > 64 << 20 { Err(Problem::new(ErrorCode::BodyTooLarge, "enough")) } else { Ok(()) }
        });
    }
}
