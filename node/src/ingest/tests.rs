use super::*;

fn ok(counted: u32, duplicates: u32, index: u64) -> Result<PartOutcome, AppendError> {
    Ok(PartOutcome { counted, duplicates, index })
}

const SHARDS: [ShardId; 2] = [ShardId(1), ShardId(4)];

#[test]
fn parts_add_up() {
    let merged = merge(&SHARDS, vec![ok(3, 1, 10), ok(2, 0, 11)]).expect("durable");
    assert_eq!((merged.counted, merged.duplicates, merged.positions), (5, 1, vec![(ShardId(1), 10), (ShardId(4), 11)]));
}

#[test]
fn what_failed_decides_the_answer_and_what_got_through_is_still_counted() {
    let overloaded = || Err(AppendError::Overloaded { shard: ShardId(1), limit_bytes: 9 });
    let stopped = || Err(AppendError::Stopped { shard: ShardId(4), detail: "sync failed".to_owned() });
    let timeout = || Err(AppendError::Timeout { shard: ShardId(4), waited_ms: 10 });
    for (outcomes, code, counted) in [
        (vec![overloaded(), overloaded()], ErrorCode::Overloaded, 0),
        (vec![stopped(), timeout()], ErrorCode::StorageFailed, 0),
        (vec![timeout(), timeout()], ErrorCode::ShardUnavailable, 0),
        (vec![ok(3, 0, 1), stopped()], ErrorCode::PartlyDurable, 3),
        (vec![timeout(), ok(4, 0, 1)], ErrorCode::PartlyDurable, 4),
    ] {
        let (appended, problem) = merge(&SHARDS, outcomes).expect_err("failed");
        assert_eq!((problem.code, appended.counted), (code, counted));
        assert!(problem.retry_after_ms.is_some() && problem.code.is_retryable());
    }
}

#[test]
fn a_request_that_could_never_be_queued_is_too_large_and_not_overload() {
    let part = |shard: u16, bytes: usize| (ShardId(shard), vec![0; bytes]);
    assert_eq!(fits_queues(&[part(0, 900), part(1, 60), part(1, 40)], 2, 100), Ok(()));
    let refused = fits_queues(&[part(0, 1), part(1, 60), part(1, 41)], 2, 100).expect_err("too much for one queue");
    assert_eq!((refused.code, refused.limit), (ErrorCode::BodyTooLarge, Some(100)));
}
