//! Who reads the catalog, and when it is tried again.
//!
//! Where a catalog is too old, one connection reads it again and the others go on with what they have. Where it could not be
//! read, it is tried again after a while, by one connection, and after a longer while each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::database::lock;

/// The readings of one database's catalog, by the kind of session that they are for.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    states: Mutex<HashMap<String, State>>,
}

#[derive(Debug, Default)]
struct State {
    under_way: u32,
    /// In a row.
    failures: u32,
    /// Not before.
    again_at: Option<Instant>,
}

/// What a connection does that has no fresh catalog.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It reads.
    Read(Reading),
    /// It goes on with this one.
    GoOn(Arc<Catalog>),
    /// It goes on without: the catalog could not be read lately.
    Without,
}

/// A connection reads. Dropped, it is as if it had never begun.
#[derive(Debug)]
pub(crate) struct Reading {
    readings: Arc<Readings>,
    key: String,
    /// In a row, when it began.
    failures: u32,
}

impl Readings {
    /// Asks what to do. `at_hand` gives the catalog to go on with, if there is one; it is told whether it may be an old one.
    pub(crate) fn ask(self: &Arc<Self>, key: &str, at_hand: impl FnOnce(bool) -> Option<Arc<Catalog>>) -> Turn {
        let mut states = lock(&self.states);
        let state = states.get(key);
        let is_paused = state.is_some_and(State::is_paused);
        if let Some(catalog) = at_hand(is_paused || state.is_some_and(|state| state.under_way > 0)) {
            return Turn::GoOn(catalog);
        }
        if is_paused { Turn::Without } else { Turn::Read(self.begin_in(&mut states, key)) }
    }

    /// Reads whatever came before.
    pub(crate) fn begin(self: &Arc<Self>, key: &str) -> Reading {
        self.begin_in(&mut lock(&self.states), key)
    }

    fn begin_in(self: &Arc<Self>, states: &mut HashMap<String, State>, key: &str) -> Reading {
        let state = states.entry(key.to_owned()).or_default();
        state.under_way += 1;
        let failures = state.failures;
        if failures > 0 {
            // Others need not try at the same time.
            state.again_at = Some(Instant::now() + pause(failures));
        }
        Reading { readings: Arc::clone(self), key: key.to_owned(), failures }
    }

    /// Whether others read, or could not, so that an old catalog will do meanwhile.
    pub(crate) fn excuse_age(&self, key: &str) -> bool {
        lock(&self.states).get(key).is_some_and(|state| state.under_way > 0 || state.is_paused())
    }

    /// Whether it could not be read lately.
    pub(crate) fn is_paused(&self, key: &str) -> bool {
        lock(&self.states).get(key).is_some_and(State::is_paused)
    }

    /// It is time to try again.
    #[cfg(test)]
    pub(crate) fn end_pauses(&self) {
        lock(&self.states).values_mut().for_each(|state| state.again_at = None);
    }
}

impl State {
    fn is_paused(&self) -> bool {
        self.again_at.is_some_and(|at| Instant::now() < at)
    }
}

/// How long an old catalog serves while another connection reads: not for ever, as that one may hang.
pub(crate) fn longest_age(max_age: Duration) -> Duration {
    const PATIENCE: Duration = Duration::from_secs(60);
    if max_age.is_zero() { max_age } else { max_age + max_age.max(PATIENCE) }
}

fn pause(failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(300);
    Duration::from_secs(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}

impl Reading {
    /// The catalog was read.
    pub(crate) fn came(self) {
        if let Some(state) = lock(&self.readings.states).get_mut(&self.key) {
            state.failures = 0;
            state.again_at = None;
        }
    }

    /// It could not be. Whether that is news.
    pub(crate) fn failed(self) -> bool {
        let readings = Arc::clone(&self.readings);
        let mut states = lock(&readings.states);
        let Some(state) = states.get_mut(&self.key) else { return false };
        let is_news = state.failures == 0;
        // Those that failed at the same time count as one.
        state.failures = state.failures.max(self.failures + 1);
        state.again_at = Some(Instant::now() + pause(state.failures));
        is_news
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut states = lock(&self.readings.states);
        let Some(state) = states.get_mut(&self.key) else { return };
        state.under_way -= 1;
        if state.under_way == 0 && state.failures == 0 {
            states.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{catalog, table};

    fn readings() -> Arc<Readings> {
        Arc::default()
    }

    fn reads(turn: Turn) -> Reading {
        match turn {
            Turn::Read(reading) => reading,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn while_one_reads_others_go_on_with_an_old_catalog_or_read_where_they_have_none() {
        let readings = readings();
        let old = catalog([table("t")]);
        let first = reads(readings.ask("me", |may_be_old| may_be_old.then(|| Arc::clone(&old))));
        assert!(matches!(readings.ask("me", |may_be_old| may_be_old.then(|| Arc::clone(&old))), Turn::GoOn(_)));
        let second = reads(readings.ask("me", |_| None));
        drop(first);
        assert!(readings.excuse_age("me") && !readings.excuse_age("you"));
        second.came();
        assert!(!readings.excuse_age("me"));
    }

    #[test]
    fn one_that_is_dropped_leaves_the_next_to_read() {
        let readings = readings();
        drop(reads(readings.ask("me", |_| None)));
        assert!(lock(&readings.states).is_empty());
        drop(reads(readings.ask("me", |_| None)));
    }

    #[test]
    fn after_a_failure_nobody_reads_for_a_while_and_then_one_does() {
        let readings = readings();
        assert!(reads(readings.ask("me", |_| None)).failed());
        assert!(matches!(readings.ask("me", |_| None), Turn::Without));
        readings.end_pauses();
        let again = reads(readings.ask("me", |_| None));
        assert!(matches!(readings.ask("me", |_| None), Turn::Without), "somebody tries");
        assert!(!again.failed(), "no news");
        assert_eq!(lock(&readings.states)["me"].failures, 2);
        readings.begin("me").came();
        reads(readings.ask("me", |_| None)).came();
    }

    #[test]
    fn failures_at_the_same_time_count_as_one() {
        let readings = readings();
        let at_once: Vec<Reading> = (0..8).map(|_| readings.begin("me")).collect();
        assert_eq!(at_once.into_iter().map(Reading::failed).filter(|&news| news).count(), 1);
        assert_eq!(lock(&readings.states)["me"].failures, 1);
    }

    #[test]
    fn pauses_grow_to_five_minutes() {
        assert_eq!([1, 2, 3, 9, 10, 99].map(|failures| pause(failures).as_secs()), [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn an_age_of_nothing_is_never_excused() {
        assert_eq!(longest_age(Duration::ZERO), Duration::ZERO);
        assert_eq!(longest_age(Duration::from_secs(2)).as_secs(), 62);
        assert_eq!(longest_age(Duration::from_secs(300)).as_secs(), 600);
    }
}
