use proptest::prelude::*;
use tallymesh_storage::clock::SystemClock;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn seal_of(cookie: &str) -> Seal {
    Seal::new(cookie).expect("a cookie")
}

fn sealed(seal: &Seal, said: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; HEAD_BYTES], said].concat();
    seal.close(&mut datagram);
    datagram
}

/// What `chitchat` itself sends for [`chitchat::ChitchatMessage::BadCluster`].
fn bad_cluster() -> Vec<u8> {
    [&45_139_u16.to_le_bytes()[..], &[0, 3]].concat()
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_what_was_changed_in_any_bit_or_length_does_not(
        said in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        cut in any::<prop::sample::Index>(),
    ) {
        let seal = seal_of("of this cluster");
        let datagram = sealed(&seal, &said);
        prop_assert_eq!(seal.open(&datagram), Some(&said[..]));
        let mut changed = datagram.clone();
        changed[at.index(datagram.len())] ^= 1 << bit;
        prop_assert_eq!(seal.open(&changed), None);
        prop_assert_eq!(seal.open(&datagram[..cut.index(datagram.len())]), None);
        let longer = [&datagram[..], &[0]].concat();
        prop_assert_eq!(seal.open(&longer), None);
        prop_assert_eq!(seal_of("of another").open(&datagram), None);
    }

    #[test]
    fn random_bytes_do_not_open(datagram in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(seal_of("of this cluster").open(&datagram), None);
    }
}

#[test]
fn seal_is_what_it_was_and_the_cookie_itself_is_no_key() {
    let datagram = sealed(&seal_of("0123456789abcdef"), b"said");
    let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("testdata/datagram-v1.hex").trim());
    let mut plain = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef").expect("a key");
    plain.update(&[VERSION]);
    plain.update(b"said");
    assert_ne!(datagram[1..HEAD_BYTES], plain.finalize().into_bytes()[..]);
    assert!(Seal::new("").is_none());
}

#[test]
fn what_is_dropped_is_spoken_of_once_a_minute() {
    let mut silence = Silence::default();
    let told: Vec<Option<u64>> = [0, 1, 59, 60, 61, 121].map(|second| silence.note(Duration::from_secs(second))).into();
    assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
}

#[tokio::test]
async fn hostile_datagrams_are_dropped_and_counted_and_the_next_good_one_comes_through() {
    let open = async |cookie: &str| {
        let dropped = Dropped::default();
        let transport = SealedTransport { seal: seal_of(cookie), dropped: dropped.clone(), clock: Arc::new(SystemClock::new()) };
        (transport.open("127.0.0.1:0".parse().expect("address")).await.expect("open"), dropped)
    };
    let ((mut receiver, dropped), (mut friend, _), (mut other, _)) = (open("ours").await, open("ours").await, open("theirs").await);
    let to = receiver.local_addr().expect("address");
    let envelope = || ChitchatEnvelope { version: chitchat::ProtocolVersion::V0, message: chitchat::ChitchatMessage::BadCluster };
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("port");
    let hostile: [&[u8]; 7] = [
        b"",
        b"\x01",
        // As an older build sends it.
        &bad_cluster(),
        &[1; HEAD_BYTES],
        &[0xff; 60_000],
        &sealed(&seal_of("theirs"), &bad_cluster()),
        // Sealed by a member, and nothing that can be read.
        &sealed(&seal_of("ours"), b"nonsense"),
    ];
    for datagram in hostile {
        stranger.send_to(datagram, to).await.expect("sent");
    }
    other.send(to, envelope()).await.expect("sent");
    let sent = friend.send(to, envelope()).await.expect("sent");
    assert_eq!(sent.num_bytes_sent, HEAD_BYTES + bad_cluster().len());
    let came = tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("in time").expect("received");
    assert_eq!((came.from_addr, came.envelope), (friend.local_addr().expect("address"), envelope()));
    assert_eq!(dropped.count(), hostile.len() as u64 + 1);
}
