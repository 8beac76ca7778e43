//! What the process uses, from `/proc/self`; zero where there is none.

/// CPU time and memory of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// User and system time since the start.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub threads: u64,
}

impl ProcessUse {
    pub fn read() -> Self {
        let mut read = Self::default();
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        read.cpu_seconds = usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9;
        if let Ok(statm) = std::fs::read_to_string("/proc/self/statm") {
            let pages: u64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
            read.resident_bytes = pages * rustix::param::page_size() as u64;
        }
        read.open_files = count("/proc/self/fd");
        read.threads = count("/proc/self/task");
        read
    }
}

fn count(dir: &str) -> u64 {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let before = ProcessUse::read();
        let mut x = 0u64;
        while ProcessUse::read().cpu_seconds <= before.cpu_seconds {
            x = std::hint::black_box(x + 1);
        }
        assert!(before.resident_bytes > 1 << 20 && before.open_files > 0 && before.threads > 0, "{before:?}");
    }
}
