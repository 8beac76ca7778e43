use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use tallymesh_protocol::error::{ErrorCode, Problem};

use super::*;
use crate::cli::client::ServerArgs;

type Answer = (StatusCode, [(&'static str, &'static str); 1], String);

/// A node that gives the answers it is told to, one for each request, and the last one for ever.
async fn node(answers: Vec<Answer>) -> (Sender, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let handler = move |headers: HeaderMap, body: Bytes| {
        let n = seen.fetch_add(1, Ordering::SeqCst);
        let answer = answers[n.min(answers.len() - 1)].clone();
        async move {
            let is_zstd = headers.get("content-encoding").is_some_and(|e| e == "zstd");
            let text = if is_zstd { zstd::bulk::decompress(&body, 1 << 20).expect("zstd") } else { body.to_vec() };
            assert!(text.starts_with(b"{\"event\""), "the body is NDJSON");
            answer.into_response()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/events", post(handler))).await });
    (Sender::new(Client::new(&ServerArgs { url }).expect("a valid address"), Duration::from_secs(20)), requests)
}

fn busy(code: ErrorCode) -> Answer {
    let problem = Problem::new(code, "later").retry_after_ms(1);
    (StatusCode::from_u16(code.status()).expect("a status"), [("retry-after", "1")], serde_json::to_string(&problem).expect("JSON"))
}

fn counted(status: StatusCode, count: u64, rejected: &str) -> Answer {
    let body = format!(
        "{{\"status\":\"accepted\",\"count\":{count},\"duplicates\":1,\"generated_ids\":0,\"rejected\":[{rejected}],\"token\":\"\"}}"
    );
    (status, [("x-request-id", "1")], body)
}

fn batch() -> Batch {
    Batch::new(b"{\"event\":\"a\"}\n".repeat(3), 3)
}

#[tokio::test]
async fn a_busy_node_is_asked_again_until_it_counts() {
    let ok = counted(StatusCode::OK, 2, "");
    let (sender, requests) = node(vec![busy(ErrorCode::Overloaded), busy(ErrorCode::PartlyDurable), ok]).await;
    let totals = sender.send(&batch()).await.expect("counted in the end");
    assert_eq!((totals.sent, totals.accepted, totals.duplicates, totals.retries), (3, 2, 1, 2));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_refused_batch_is_not_sent_again() {
    let (sender, requests) = node(vec![busy(ErrorCode::UnsupportedMediaType)]).await;
    assert!(matches!(sender.send(&batch()).await, Err(CliError::Refused(p)) if p.code == ErrorCode::UnsupportedMediaType));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_end_when_their_time_is_up() {
    let (sender, requests) = node(vec![busy(ErrorCode::Overloaded)]).await;
    let sender = Sender { retry_for: Duration::from_millis(350), ..sender };
    assert!(matches!(sender.send(&batch()).await, Err(CliError::Refused(p)) if p.code == ErrorCode::Overloaded));
    assert!((2..=4).contains(&requests.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn rejected_events_are_told_with_their_reason_also_when_none_was_good() {
    let reason = r#"{"index":1,"code":"wrong_type","field":"value","detail":"a number was expected"}"#;
    let (sender, _) = node(vec![counted(StatusCode::UNPROCESSABLE_ENTITY, 0, reason)]).await;
    let totals = sender.send(&batch()).await.expect("an answer");
    assert_eq!(totals.rejected, 1);
    assert_eq!(totals.reasons, ["event 1 of its batch: wrong_type `value`: a number was expected"]);
}

#[tokio::test]
async fn large_bodies_travel_compressed() {
    let (sender, _) = node(vec![counted(StatusCode::OK, 9_999, "")]).await;
    let large = Batch::new(b"{\"event\":\"a\"}\n".repeat(10_000), 10_000);
    assert!(large.is_zstd && large.body.len() < 10_000);
    assert_eq!(sender.send(&large).await.expect("counted").accepted, 9_999);
}

#[tokio::test]
async fn what_one_node_does_not_take_another_is_given_at_once() {
    let (there, requests) = node(vec![counted(StatusCode::OK, 3, "")]).await;
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let away = Client::new(&ServerArgs { url: format!("127.0.0.1:{port}") }).expect("a valid address");
    let sender = Sender::over([away, there.clients[0].clone()].into(), Duration::from_secs(20));
    for sent in 1..=3 {
        let totals = sender.send(&batch()).await.expect("taken");
        assert_eq!(totals.retries, u64::from(sent == 1), "afterwards it is left alone for a while");
        assert_eq!(requests.load(Ordering::SeqCst), sent);
    }
}
