//! How many files the system lets this process open; each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::FILES_RESERVED;

/// Raises the soft limit to the hard one: service managers and shells start processes with a soft limit of 1 024 for the sake of `select(2)`.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, fewer connections are taken; see `connections_that_fit`.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// As many connections as asked for, or as there are files beside those of the data directory.
pub fn connections_that_fit(connections_max: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = within(files, connections_max);
    if fit < connections_max {
        tracing::warn!(
            files,
            connections = fit,
            "the limit of open files is below http.connections_max; raise it (ulimit -n, LimitNOFILE=) to take more connections"
        );
    }
    fit
}

fn within(files: u64, connections_max: usize) -> usize {
    // Half of very few: a node without files cannot write.
    let left = files.saturating_sub(FILES_RESERVED).max(files / 2);
    connections_max.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_data() {
        assert_eq!(within(u64::MAX, 10_000), 10_000);
        assert_eq!(within(10_000, 10_000), 10_000 - FILES_RESERVED as usize);
        assert_eq!(within(1_024, 10_000), 512);
        assert_eq!(within(0, 10), 1);
    }
}
