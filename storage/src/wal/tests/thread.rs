//! The production runner, on the machine's disk.

use super::*;
use crate::disk::RealDisk;

fn open_in(dir: &Path) -> (Wal, WalThread) {
    let opened = Wal::open(Arc::new(RealDisk), Arc::new(crate::clock::SystemClock::new()), dir, WalOptions::default()).unwrap();
    let thread = WalThread::spawn(opened.writer).unwrap();
    (opened.wal, thread)
}

#[test]
fn concurrent_groups_share_syncs_and_find_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, mut thread) = open_in(dir.path());
    std::thread::scope(|scope| {
        for group in 0..8 {
            let wal = &wal;
            scope.spawn(move || {
                let outcomes: Vec<Outcome> = (1..=50)
                    .map(|index| {
                        let (done, outcome) = told();
                        wal.append(group, entries(index, index, 2_000), done);
                        outcome
                    })
                    .collect();
                outcomes.into_iter().for_each(|outcome| outcome.recv().unwrap().unwrap());
            });
        }
    });
    let stats = wal.stats();
    assert_eq!(stats.requests, 400);
    assert!(stats.syncs < 400, "{} syncs", stats.syncs);
    thread.close();
    thread.close();
    let (done, outcome) = told();
    wal.append(0, entries(51, 51, 1), done);
    assert!(matches!(outcome.try_recv().unwrap(), Err(StorageError::Poisoned(_))));

    let opened = Wal::open(Arc::new(RealDisk), Arc::new(TestClock::default()), dir.path(), WalOptions::default()).unwrap();
    assert_eq!((opened.recovered.torn, opened.recovered.damage), (None, Vec::new()));
    for group in 0..8 {
        assert_eq!(opened.wal.read(group, 0..100).unwrap(), entries(1, 50, 2_000));
    }
}

#[test]
fn the_writer_waits_for_those_who_came_together_and_not_for_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Wal::open(Arc::new(RealDisk), Arc::new(crate::clock::SystemClock::new()), dir.path(), WalOptions::default()).unwrap();
    let (wal, mut writer) = (opened.wal, opened.writer);
    let append = |group: u16, index: u64| wal.append(group, entries(index, index, 10), Box::new(|written| written.unwrap()));
    let forever = std::time::Duration::from_secs(600);
    append(0, 1);
    writer.gather(forever);
    assert_eq!(writer.step(), 1, "nobody else is expected");
    append(0, 2);
    writer.gather(forever);
    append(1, 1);
    append(2, 1);
    assert_eq!(writer.step(), 3);
    append(0, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..=2).for_each(|group| append(group, 2)));
        writer.gather(forever);
    });
    assert_eq!(writer.step(), 3, "the three of before");
    append(0, 4);
    writer.gather(std::time::Duration::from_millis(1));
    assert_eq!(writer.step(), 1, "who does not come is not waited for");
}

#[test]
fn closing_finishes_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, thread) = open_in(dir.path());
    let outcomes: Vec<Outcome> = (1..=20)
        .map(|index| {
            let (done, outcome) = told();
            wal.append(1, entries(index, index, 100), done);
            outcome
        })
        .collect();
    drop(thread);
    assert!(outcomes.into_iter().all(|outcome| outcome.try_recv().unwrap().is_ok()));
}

#[test]
fn a_panicking_callback_poisons_instead_of_leaving_callers_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, thread) = open_in(dir.path());
    wal.append(1, entries(1, 1, 1), Box::new(|_| panic!("a planted panic")));
    let (done, outcome) = told();
    wal.append(1, entries(2, 2, 1), done);
    // Written in the same batch it is dropped with it, else it is refused: it is told, or its sender is gone.
    assert!(!matches!(outcome.recv(), Ok(Ok(()))));
    drop(thread);
    assert!(wal.stats().poisoned.unwrap().contains("panicked"));
}
