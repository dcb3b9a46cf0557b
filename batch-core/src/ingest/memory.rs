//! How much memory batches may take where nobody says.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// A part of the memory that the process may use, within bounds in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) fraction: f64,
    pub(super) floor: usize,
    pub(super) ceiling: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { fraction: 0.125, floor: 8 << 20, ceiling: 256 << 20 }
    }
}

impl Share {
    pub(super) fn bytes(self) -> usize {
        let known = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(known);
        // A cgroup without a limit of its own gives the machine's.
        let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
        self.of(limit.min(system.total_memory()))
    }

    fn of(self, memory: u64) -> usize {
        let part = (memory as f64 * self.fraction) as usize;
        part.max(self.floor).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_part_of_the_memory_within_bounds() {
        let share = Share::default();
        assert_eq!(share.of(256 << 20), 32 << 20);
        assert_eq!(share.of(16 << 20), 8 << 20);
        assert_eq!(share.of(1 << 40), 256 << 20);
        assert!((share.floor..=share.ceiling).contains(&share.bytes()));
    }

    #[test]
    fn a_ceiling_holds_even_below_the_floor() {
        assert_eq!(Share { fraction: 0.5, floor: 100, ceiling: 10 }.of(1_000), 10);
        assert_eq!(Share { fraction: 0.5, floor: 100, ceiling: 400 }.of(1_000), 400);
        assert_eq!(Share { fraction: 0.5, floor: 100, ceiling: 900 }.of(1_000), 500);
    }
}
