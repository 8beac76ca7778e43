//! A workload, a power cut, a workload, and harm to the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use tallymesh_storage::StorageError;
use tallymesh_storage::disk::{PowerCut, SimDisk, Unsynced};
use tallymesh_storage::wal::{LogEntry, Opened};

use super::workload::{GROUPS, Model, Workload, write_all};
use super::{disk_of, found, open};
use crate::input::Input;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The end of what is marked as synced: a file and the bytes of it before its mark. Files before that one are covered whole.
struct Marked {
    path: PathBuf,
    bytes: usize,
}

pub(super) fn run(mut input: Input<'_>) {
    let (disk, mut workload) = (SimDisk::new(), Workload::new());
    let mut opened = opened(&disk);
    workload.run(&mut opened, &mut input);

    let end = input.byte();
    if end & 1 == 1 {
        disk.fail_after(u64::from(end >> 3));
        write_all(&mut opened);
        let unsynced = [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero][usize::from(end >> 1 & 3) % 3];
        disk.crash(PowerCut { unsynced, seed: u64::from(input.byte()) });
        opened = self::opened(&disk);
        assert_eq!(opened.recovered.damage, [], "a power cut is no damage");
        workload.check_and_restart(&opened.wal);
        workload.run(&mut opened, &mut input);
    }
    write_all(&mut opened);
    let before = disk.files();
    let is_marked = end & 4 == 4;
    if is_marked {
        opened.writer.mark();
    }
    let mut files = disk.files();
    let marked = files.iter().next_back().filter(|_| is_marked).map(|(path, bytes)| {
        // Over zeroes that were there already, perhaps. A log that was marked already gets no second mark.
        let was = before.get(path).map_or(&[][..], Vec::as_slice);
        let same = was.iter().zip(bytes).take_while(|(was, is)| was == is).count();
        Marked { path: path.clone(), bytes: if same < bytes.len() { same / 16 * 16 } else { 0 } }
    });
    drop(opened);

    let mut is_covered = true;
    let mut is_harmed = false;
    while !input.is_empty() {
        let before = files.clone();
        harm(&mut files, &mut input);
        is_harmed |= before != files;
        is_covered &= marked.as_ref().is_some_and(|marked| is_within(&before, &files, marked));
    }
    check(&files, &workload, is_harmed, is_covered);
}

fn opened(disk: &SimDisk) -> Opened {
    open(disk).unwrap_or_else(|e| panic!("{e}"))
}

/// Whether a change left alone the mark and every length, so that whatever it did lies where the log knows that it was synced.
fn is_within(before: &Files, after: &Files, marked: &Marked) -> bool {
    let behind = |files: &Files| files.get(&marked.path).and_then(|bytes| bytes.get(marked.bytes..).map(<[u8]>::to_vec));
    let lengths = |files: &Files| files.iter().map(|(path, bytes)| (path.clone(), bytes.len())).collect::<Vec<_>>();
    lengths(before) == lengths(after) && behind(before) == behind(after)
}

fn check(files: &Files, workload: &Workload, is_harmed: bool, is_covered: bool) {
    let disk = disk_of(files);
    let mut first = match open(&disk) {
        Ok(first) => first,
        Err(StorageError::Version { .. }) if is_harmed => return,
        Err(other) => panic!("{other}"),
    };
    let states = found(&first.wal, GROUPS);
    for (group, state) in &states {
        let history = &workload.groups[group];
        match state {
            // Stopped, and it says so.
            None => assert!(is_harmed && !first.recovered.damage.is_empty(), "group {group} is stopped without damage"),
            Some(state) if !is_harmed || is_covered => {
                assert_eq!(Some(state), history.states.last(), "group {group}: damage in the middle went unseen");
            }
            Some(state) => assert!(history.states.contains(state), "group {group} holds what it never held: {state:?}"),
        }
    }
    if is_covered && is_harmed {
        assert_eq!(first.recovered.torn, None, "synced bytes were taken for a torn write");
    }
    // What was found once is found again, and the groups that were not stopped go on.
    let mut expected = states.clone();
    for (&group, state) in &mut expected {
        let Some((state, index)) = state.as_mut().and_then(|s| s.next_index().map(|index| (s, index))) else { continue };
        first.wal.append(
            group,
            vec![LogEntry { index, meta: Bytes::new(), body: Bytes::from_static(b"goes on") }],
            Box::new(|told| assert!(told.is_ok())),
        );
        write_all(&mut first);
        *state = Model::of(&first.wal, group).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(state.next_index(), index.checked_add(1));
    }
    drop(first);
    let again = opened(&disk);
    assert_eq!(found(&again.wal, GROUPS), expected, "after another restart");
    assert_eq!(again.recovered.torn, None);
}

/// One change to one file.
fn harm(files: &mut Files, input: &mut Input<'_>) {
    let choice = input.byte();
    let Some(path) = files.keys().nth(usize::from(input.byte()) % files.len().max(1)).cloned() else { return };
    let (at, length) = (input.short(), usize::from(input.byte()) * 4);
    let other = files.values().nth(length % files.len()).cloned().unwrap_or_default();
    let Some(bytes) = files.get_mut(&path) else { return };
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    let end = (at + length).min(bytes.len());
    match choice % 11 {
        0 | 1 => bytes[at] ^= 1 << (choice >> 5),
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].fill(0xff),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..end)),
        6 => drop(bytes.splice(at..at, input.take(length / 4).iter().copied())),
        // A stretch of another place, or of another file, over this one; aligned, so that records stand where records can.
        7 | 8 => {
            let source = if choice % 11 == 7 { bytes.clone() } else { other };
            let (to, from) = (at / 16 * 16, usize::from(input.byte()) * 16 % source.len().max(1));
            let stretch = &source[from..(from + length).min(source.len())];
            let stretch = &stretch[..stretch.len().min(bytes.len() - to)];
            bytes[to..to + stretch.len()].copy_from_slice(stretch);
        }
        9 => drop(files.remove(&path)),
        _ => drop(files.insert(path, other)),
    }
}
