//! How much memory batches may take where nobody says.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

const FLOOR: u64 = 8 << 20;
const CEILING: u64 = 256 << 20;
const PART: u64 = 8;

/// In bytes.
pub(super) fn budget() -> usize {
    let known = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(known);
    // A cgroup without a limit of its own gives the machine's.
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    part_of(limit.min(system.total_memory()))
}

fn part_of(memory: u64) -> usize {
    (memory / PART).clamp(FLOOR, CEILING) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_part_of_the_memory_within_bounds() {
        assert_eq!(part_of(256 << 20), 32 << 20);
        assert_eq!(part_of(16 << 20), FLOOR as usize);
        assert_eq!(part_of(1 << 40), CEILING as usize);
        assert!((FLOOR..=CEILING).contains(&(budget() as u64)));
    }
}
