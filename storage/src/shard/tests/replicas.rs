use super::*;
use model::{query, steps, store};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn replicas_agree_however_each_of_them_saves_and_restarts(steps in steps(), query in query()) {
        let (_, files) = simulated();
        let mut log = Model::default();
        let mut steady = ShardState::new(ShardOptions { dedup_memory_bytes_max: 64 << 20 });
        let mut restarted = ShardState::new(ShardOptions { dedup_memory_bytes_max: 0 });
        for step in &steps {
            if let Some((index, command)) = log.command(step) {
                prop_assert_eq!(steady.apply(index, &command), restarted.apply(index, &command));
            }
            store(&mut restarted, &files, step);
            prop_assert_eq!(steady.checksum(), restarted.checksum());
        }
        prop_assert_eq!(steady.watermark_ms(), restarted.watermark_ms());
        let mut counts = [steady, restarted].map(|s| {
            let answer = s.query(&query).expect("answers");
            answer.cells.iter().map(|c| (answer.groups[c.group as usize].clone(), c.bucket, c.values.count)).collect::<Vec<_>>()
        });
        counts.iter_mut().for_each(|c| c.sort());
        prop_assert_eq!(&counts[0], &counts[1]);
    }
}
