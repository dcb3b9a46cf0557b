//! Which of the engine's statements are prepared, and kept so by the driver and the server.
//!
//! Each set of tables and columns that wait together is a text of its own, and a program may make thousands of them. A prepared
//! one takes some 70 kB of its backend, and a place in the ORM's cache. So only few are: those that come often.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::statement::Query;

/// So many are prepared at most.
const MAX: usize = 32;
/// The first so many are prepared as soon as they come, and each further so many only if they come [`MORE`] times as often. So what
/// comes often finds a place, whatever came before it.
const STEP: usize = 8;
const MORE: u32 = 4;
/// Texts that are counted.
const MAX_COUNTED: usize = 4_096;
/// Where the driver drops what it has not used for long, a text that was not used for so many statements gives its place to another.
const LONG: u64 = 256;

/// What is prepared on a connection, or on those of a pool.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The driver sends a statement unprepared in a single round trip: preparing it costs one more, which planning it anew takes a
    /// few times to make up for.
    pub late: bool,
    /// The driver drops by itself what was not used for long.
    pub drops: bool,
    /// When each was used last.
    kept: HashMap<u64, u64>,
    times: HashMap<u64, u32>,
    now: u64,
    hasher: RandomState,
}

impl Prepared {
    /// Says whether a statement is to be prepared, which is about to be run.
    pub(crate) fn note(&mut self, query: &mut Query) {
        if !query.cacheable {
            return;
        }
        self.now += 1;
        let text = self.hasher.hash_one(&query.sql);
        if let Some(used) = self.kept.get_mut(&text) {
            *used = self.now;
            return;
        }
        if self.times.len() >= MAX_COUNTED {
            // What came once is forgotten first.
            self.times.retain(|_, times| {
                *times /= 2;
                *times > 0
            });
        }
        let times = self.times.entry(text).or_default();
        *times = times.saturating_add(1);
        query.cacheable = *times >= self.wanted() && self.has_room();
        if query.cacheable {
            self.times.remove(&text);
            self.kept.insert(text, self.now);
        }
    }

    /// How often a text has to come.
    fn wanted(&self) -> u32 {
        let first = if self.late { MORE } else { 1 };
        first * MORE.pow((self.kept.len().min(MAX - 1) / STEP) as u32)
    }

    fn has_room(&mut self) -> bool {
        if self.kept.len() < MAX {
            return true;
        }
        let oldest = self.kept.iter().map(|(&text, &used)| (used, text)).min();
        match oldest.filter(|&(used, _)| self.drops && used + LONG < self.now) {
            Some((_, text)) => self.kept.remove(&text).is_some(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Purpose;

    impl Prepared {
        fn prepares(&mut self, text: impl ToString) -> bool {
            let mut query = Query::new(Purpose::Flush, text.to_string());
            self.note(&mut query);
            query.cacheable
        }
    }

    #[test]
    fn the_texts_of_a_loop_are_prepared_at_once_or_where_that_costs_a_round_trip_later() {
        let mut prepared = Prepared::default();
        assert!((0..8).all(|n| prepared.prepares(n)) && (0..8).all(|n| prepared.prepares(n)));
        let mut late = Prepared { late: true, ..Prepared::default() };
        let first: Vec<bool> = (0..6).map(|_| late.prepares("a")).collect();
        assert_eq!(first, [false, false, false, true, true, true]);
    }

    #[test]
    fn however_many_texts_there_are_few_are_prepared_and_a_frequent_one_always_is() {
        for late in [false, true] {
            let mut prepared = Prepared { late, ..Prepared::default() };
            for n in 0..20_000 {
                prepared.prepares(n % 300);
                prepared.prepares(format!("once {n}"));
            }
            assert!(prepared.kept.len() <= MAX && prepared.times.len() <= MAX_COUNTED);
            let mut prepared = Prepared { late, ..Prepared::default() };
            for n in 0..2_000 {
                prepared.prepares(format!("once {n}"));
            }
            assert!((0..20).any(|_| prepared.prepares("often")));
        }
    }

    #[test]
    fn where_the_driver_drops_what_is_old_its_place_is_taken() {
        for drops in [false, true] {
            let mut prepared = Prepared { drops, ..Prepared::default() };
            for n in 0..100 * MAX {
                prepared.prepares(n % MAX);
            }
            assert_eq!(prepared.kept.len(), MAX);
            assert_eq!((0..1_000).any(|_| prepared.prepares("new")), drops);
            assert_eq!(prepared.kept.len(), MAX);
        }
    }

    #[test]
    fn what_differs_each_time_is_not_counted() {
        let mut prepared = Prepared::default();
        let mut query = Query::new(Purpose::Flush, "INSERT");
        query.cacheable = false;
        prepared.note(&mut query);
        assert!(!query.cacheable && prepared.kept.is_empty() && prepared.times.is_empty());
    }
}
