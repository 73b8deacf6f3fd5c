//! CPU time and memory of processes, from `/proc`. Elsewhere than on Linux nothing is known, and the
//! report says so.

use std::fs;
use std::time::Duration;

/// CPU time of one process so far, user and system, without its children.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = Stat::read(pid)?;
    Some(ticks(stat.own))
}

/// CPU time so far of the children of a process that have ended and were waited for.
pub fn ended_children_cpu(pid: u32) -> Option<Duration> {
    let stat = Stat::read(pid)?;
    Some(ticks(stat.ended_children))
}

/// CPU time so far of a process and its children, living and ended: a PostgreSQL server.
pub fn tree_cpu(pid: u32) -> Option<Duration> {
    let parent = Stat::read(pid)?;
    let mut total = parent.own + parent.ended_children;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let child = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // A process that ends meanwhile has become an ended child; what it used is seen next time.
        if let Some(stat) = child.and_then(Stat::read).filter(|stat| stat.parent == pid) {
            total += stat.own + stat.ended_children;
        }
    }
    Some(ticks(total))
}

/// Memory of a process in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: f64,
    /// Most that ever was resident (`VmHWM`).
    pub peak: f64,
}

/// Resident memory of a process.
pub fn memory(pid: u32) -> Option<Memory> {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(f64::from(kib) / 1024.0)
    };
    Some(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

struct Stat {
    parent: u32,
    /// Clock ticks.
    own: u64,
    /// Clock ticks.
    ended_children: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): the second field is a name in parentheses, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        // The first of these is field 3 of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
            own: field(14)? + field(15)?,
            ended_children: field(16)? + field(17)?,
        })
    }
}

fn ticks(count: u64) -> Duration {
    let millis = count.saturating_mul(1_000) / rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let text = "42 (a) b c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 5 6 20 0 1 0 99 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 120, 11));
    }

    #[test]
    fn memory_is_in_mebibytes() {
        let memory = parse_memory("Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n").unwrap();
        assert_eq!(
            memory,
            Memory {
                resident: 2.0,
                peak: 4.0
            }
        );
        assert_eq!(parse_memory("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_cpu_time_and_memory() {
        let pid = std::process::id();
        // In this order: the process goes on working between two readings.
        let own = cpu(pid).unwrap();
        assert!(tree_cpu(pid).unwrap() >= own);
        assert!(memory(pid).unwrap().peak > 0.0);
    }
}
