//! What happens while nothing comes.

use tallymesh_storage::disk::SimDisk;

use super::*;
use crate::mesh::boot;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn idle_shards_close_their_windows_and_then_hardly_write() {
    run(async {
        let clock = Arc::new(VirtualClock { start: Instant::now() });
        let options = options(Arc::new(SimDisk::new()), clock, Path::new("/data"), 2);
        let mesh = boot::start(options, Blocking::Inline, None).await.expect("start");
        assert!(mesh.append(vec![(ShardId(0), batch(0..100))], TIMEOUT).await[0].is_ok());
        assert_eq!(mesh.status()[0].open_rows, 100);
        let before: Vec<u64> = mesh.status().iter().map(|s| s.last_log_index).collect();
        tokio::time::sleep(Duration::from_secs(5 * 60)).await;
        assert_eq!(mesh.status()[0].open_rows, 0, "closed by ticks, nothing else came");
        tokio::time::sleep(3 * HOUR).await;
        let after_hours: Vec<u64> = mesh.status().iter().map(|s| s.last_log_index).collect();
        let written = after_hours[0] - before[0];
        assert!((2..=30).contains(&written), "{written} entries in three hours");
        assert_eq!(after_hours[1], before[1], "an empty shard writes nothing");
        assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 100), (1, 0)]));
        mesh.shutdown().await;
    });
}

#[test]
fn full_disk_does_not_end_a_node_that_only_keeps_time() {
    run(async {
        let disk = SimDisk::new();
        let clock = Arc::new(VirtualClock { start: Instant::now() });
        let mesh = boot::start(options(Arc::new(disk.clone()), clock, Path::new("/data"), 2), Blocking::Inline, None).await.expect("start");
        assert!(mesh.append(vec![(ShardId(0), batch(0..100))], TIMEOUT).await[0].is_ok());
        // Somebody else has taken all the room there was.
        disk.set_capacity(Some(0));
        tokio::time::sleep(3 * HOUR).await;
        assert!(mesh.is_ready(), "{:?}", mesh.status());
        assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 100), (1, 0)]));
        disk.set_capacity(None);
        tokio::time::sleep(Duration::from_secs(5 * 60)).await;
        assert_eq!(mesh.status()[0].open_rows, 0, "ticks go on once there is room");
        assert!(mesh.append(vec![(ShardId(0), batch(100..200))], TIMEOUT).await[0].is_ok());
        assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 200), (1, 0)]));
        mesh.shutdown().await;
    });
}
