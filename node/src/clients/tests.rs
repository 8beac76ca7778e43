use tallymesh_storage::clock::SystemClock;

use super::*;

fn clients(change: impl FnOnce(&mut config::Clients)) -> Clients {
    let mut config = config::Clients::default();
    change(&mut config);
    Clients::new(&config, Arc::new(SystemClock::new()))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn forwarded(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(FORWARDED_FOR, value.parse().expect("a header"));
    }
    headers
}

#[test]
fn connections_are_counted_by_address_and_given_back() {
    let clients = clients(|c| c.connections_max = 2);
    let (one, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
    let held = [clients.connect(one), clients.connect(one)];
    assert!(held.iter().all(Option::is_some));
    assert!(clients.connect(one).is_none() && clients.connect(other).is_some());
    assert!(clients.connect(ip("::ffff:10.0.0.1")).is_none(), "the same address, written otherwise");
    assert_eq!(clients.refused.connections.get(), 2);
    drop(held);
    assert!(clients.connect(one).is_some());
}

#[test]
fn an_ipv6_block_is_one_client() {
    let clients = clients(|c| c.connections_max = 1);
    let _held = clients.connect(ip("2001:db8::1")).expect("the first");
    assert!(clients.connect(ip("2001:db8::2")).is_none());
    assert!(clients.connect(ip("2001:db8:0:1::1")).is_some());
}

#[test]
fn headers_are_believed_as_far_as_the_proxies_are_trusted() {
    let trusting = clients(|c| c.trusted_proxies = vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]);
    for (peer, headers, origin) in [
        ("10.0.0.1", &["9.9.9.9"][..], "9.9.9.9"),
        ("10.0.0.1", &["6.6.6.6, 9.9.9.9:1234, 10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", &["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", &["9.9.9.9, nonsense, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("::1", &["2001:db8::7"], "2001:db8::7"),
        ("9.9.9.9", &["6.6.6.6"], "9.9.9.9"),
    ] {
        assert_eq!(trusting.origin(ip(peer), &forwarded(headers)), ip(origin), "{peer} {headers:?}");
    }
    assert_eq!(clients(|_| {}).origin(ip("127.0.0.1"), &forwarded(&["6.6.6.6"])), ip("127.0.0.1"), "nobody is trusted by default");
}

#[test]
fn a_trusted_proxy_may_have_any_number_of_connections() {
    let clients = clients(|c| {
        c.connections_max = 1;
        c.trusted_proxies = vec!["10.0.0.1".to_owned()];
    });
    let held: Vec<_> = (0..3).map(|_| clients.connect(ip("10.0.0.1"))).collect();
    assert!(held.iter().all(Option::is_some));
}

#[test]
fn what_is_idle_is_forgotten_and_what_is_open_or_in_debt_is_not() {
    let clients = clients(|c| c.ingest_rate = config::units::ByteSize(1));
    let held = clients.connect(ip("10.0.0.1")).expect("a place");
    drop(clients.connect(ip("10.0.0.2")));
    clients.of(Some(ip("10.0.0.3")), &HeaderMap::new()).ingest_rate.lock().charge(Duration::ZERO, 1_000_000);
    assert_eq!(clients.tracked(), 3);
    clients.forget_idle();
    assert_eq!(clients.tracked(), 2);
    drop(held);
    clients.forget_idle();
    assert_eq!(clients.tracked(), 1);
}

#[test]
fn the_table_is_bounded_and_newcomers_share_what_is_left() {
    let clients = clients(|c| c.connections_max = 1);
    let address = |i: usize| IpAddr::from((i as u32).to_be_bytes());
    for i in 0..CLIENTS_TRACKED_MAX {
        drop(clients.connect(address(i)));
    }
    let first = clients.connect(address(CLIENTS_TRACKED_MAX)).expect("the shared place");
    assert!(clients.connect(address(CLIENTS_TRACKED_MAX + 1)).is_none(), "it is shared");
    assert_eq!(clients.tracked(), CLIENTS_TRACKED_MAX);
    drop(first);
    clients.forget_idle();
    assert_eq!(clients.tracked(), 0);
}

#[tokio::test]
async fn queries_at_once_and_queries_a_second_are_limited_for_each_client() {
    let clients = clients(|c| {
        c.queries_max = 2;
        c.query_rate = 4;
    });
    let as_client = async |address: &str| {
        let client = clients.of(Some(ip(address)), &HeaderMap::new());
        Clients::asking(client, async { clients.admit_query() }).await
    };
    let held = (as_client("10.0.0.1").await.expect("first"), as_client("10.0.0.1").await.expect("second"));
    let refused = as_client("10.0.0.1").await.err().expect("too many at once");
    assert_eq!(
        (refused.code, refused.status, refused.limit, refused.retry_after_ms.is_some()),
        (ErrorCode::RateLimited, 429, Some(2), true)
    );
    let _other = as_client("10.0.0.2").await.expect("somebody else");
    drop(held);
    let mut admitted = 2;
    let refused = loop {
        match as_client("10.0.0.1").await {
            Ok(_) => admitted += 1,
            Err(problem) => break problem,
        }
    };
    assert!((8..=9).contains(&admitted), "{admitted}");
    assert_eq!(refused.limit, Some(4));
    assert!(refused.retry_after_ms.is_some_and(|ms| (1..=250).contains(&ms)), "{refused:?}");
}
