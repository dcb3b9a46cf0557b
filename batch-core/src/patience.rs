//! How long rows may wait, and how many may go out at once: by the timeouts of the server.
//!
//! Where rows wait the server hears nothing, and its timeouts for idle sessions run; a flush does the work of many statements,
//! and the timeouts for one statement run all the same. Neither may end a transaction that would have lived without batching.
//! There is no timer here: the time is looked at in each call.

use std::collections::HashMap;
use std::time::Duration;

/// The timeouts of a session that waiting rows can run into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// `statement_timeout`
    pub statement: Option<Duration>,
    /// `transaction_timeout`, from PostgreSQL 17 on
    pub transaction: Option<Duration>,
    /// `idle_in_transaction_session_timeout`
    pub idle_in_transaction: Option<Duration>,
    /// `idle_session_timeout`, from PostgreSQL 14 on
    pub idle_session: Option<Duration>,
}

impl Timeouts {
    /// An SQL expression for them, for [`Timeouts::read`].
    pub(crate) const SQL: &str = "current_setting('statement_timeout') \
         || ',' || COALESCE(current_setting('transaction_timeout', true), '0') \
         || ',' || current_setting('idle_in_transaction_session_timeout') \
         || ',' || COALESCE(current_setting('idle_session_timeout', true), '0')";

    /// Reads what [`Timeouts::SQL`] gave; `None` if it cannot be understood.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(',').map(duration);
        Some(Self {
            statement: parts.next()??,
            transaction: parts.next()??,
            idle_in_transaction: parts.next()??,
            idle_session: parts.next()??,
        })
    }

    /// How long one flush may take.
    pub(crate) fn flush(&self) -> Option<Duration> {
        self.statement.into_iter().chain(self.transaction).min().map(|timeout| timeout / 4)
    }

    /// How long the server may have heard nothing in a transaction before the next call has something sent. The program may
    /// be busy for the rest of the timeout before it calls again.
    pub(crate) fn quiet(&self) -> Option<Duration> {
        self.idle_in_transaction.map(|timeout| timeout / 10)
    }

    /// With a setting changed.
    pub(crate) fn with(mut self, setting: &Setting) -> Self {
        let at = match setting.timeout {
            Timeout::Statement => &mut self.statement,
            Timeout::Transaction => &mut self.transaction,
            Timeout::IdleInTransaction => &mut self.idle_in_transaction,
            Timeout::IdleSession => &mut self.idle_session,
        };
        *at = setting.to;
        self
    }

    /// The shorter of each.
    pub(crate) fn strictest(self, other: Self) -> Self {
        let shorter = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
        Self {
            statement: shorter(self.statement, other.statement),
            transaction: shorter(self.transaction, other.transaction),
            idle_in_transaction: shorter(self.idle_in_transaction, other.idle_in_transaction),
            idle_session: shorter(self.idle_session, other.idle_session),
        }
    }
}

/// One of the [`Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Statement,
    Transaction,
    IdleInTransaction,
    IdleSession,
}

/// `SET` of one of the timeouts to a value that stands in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    timeout: Timeout,
    to: Option<Duration>,
    /// `SET LOCAL`
    pub is_local: bool,
}

impl Setting {
    pub(crate) fn new(name: &str, value: &str, is_local: bool) -> Option<Self> {
        let timeout = match name {
            "statement_timeout" => Timeout::Statement,
            "transaction_timeout" => Timeout::Transaction,
            "idle_in_transaction_session_timeout" => Timeout::IdleInTransaction,
            "idle_session_timeout" => Timeout::IdleSession,
            _ => return None,
        };
        Some(Self { timeout, to: duration(value)?, is_local })
    }
}

/// A time as Postgres writes and reads it, milliseconds where it has no unit: `Some(None)` is none.
fn duration(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * millis / 1_000.0).ok()?;
    Some((!time.is_zero()).then_some(time))
}

/// The work of inserting rows: one for each, and one for each kibibyte of theirs.
pub(crate) fn work(rows: usize, bytes: usize) -> usize {
    rows + bytes / 1024
}

/// What a flush with so much work of a table took: for the flush as a whole, so no less than the table's part.
#[derive(Clone, Copy, Debug)]
struct Pace {
    work: usize,
    time: Duration,
}

impl Pace {
    /// Until something is known, as slow as an insert with some triggers' worth of checks.
    const UNKNOWN: Self = Self { work: 1, time: Duration::from_millis(20) };
    /// What took so long may take longer in proportion where there is more, but is not believed for much more.
    const GROWTH: usize = 8;

    /// How long so much work may take.
    fn predict(&self, work: usize) -> Duration {
        self.time.mul_f64(work as f64 / self.work.max(1) as f64)
    }
}

/// How fast the tables of a database take rows, as far as it was measured.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    by_table: HashMap<u32, Pace>,
    /// A round trip that did next to nothing.
    round_trip: Option<Duration>,
}

impl Paces {
    /// A question was answered, which is hardly more than a round trip.
    pub(crate) fn answered(&mut self, time: Duration) {
        self.round_trip = Some(self.round_trip.map_or(time, |known| known.min(time)));
    }

    /// Whether a flush with this work, by table, is likely to be done within `limit`.
    pub(crate) fn is_in_time(&self, work: impl Iterator<Item = (u32, usize)>, limit: Duration) -> bool {
        let mut time = Duration::ZERO;
        for (table, work) in work {
            let pace = self.by_table.get(&table);
            // What would do where nothing is known will do where little is.
            let is_bold = Pace::UNKNOWN.predict(work) > limit;
            if is_bold && pace.is_some_and(|pace| work > pace.work.saturating_mul(Pace::GROWTH)) {
                return false;
            }
            time += pace.unwrap_or(&Pace::UNKNOWN).predict(work);
        }
        time <= limit
    }

    /// A flush with this work, by table, took so long.
    pub(crate) fn measured(&mut self, work: &[(u32, usize)], time: Duration) {
        let time = time.saturating_sub(self.round_trip.unwrap_or_default());
        for &(table, work) in work {
            let new = Pace { work, time };
            let known = self.by_table.entry(table).or_insert(new);
            // What was small says little of what is large, unless it was slower.
            if work >= known.work || time > known.time || known.predict(work) > time * 2 {
                *known = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn times_are_read_as_postgres_writes_and_reads_them() {
        for (text, millis) in [
            ("1s", 1_000),
            ("250ms", 250),
            ("2min", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1500", 1_500),
            ("1.5 s", 1_500),
        ] {
            assert_eq!(duration(text), Some(Some(ms(millis))), "{text}");
        }
        assert_eq!(duration("0"), Some(None));
        assert!(["", "soon", "1 parsec", "-1"].iter().all(|text| duration(text).is_none()));
    }

    #[test]
    fn the_shortest_counts_for_a_flush() {
        let timeouts = Timeouts::read("1s,400ms,0,2min").unwrap();
        assert_eq!(
            (timeouts.flush(), timeouts.quiet(), timeouts.idle_session),
            (Some(ms(100)), None, Some(ms(120_000)))
        );
        assert_eq!(Timeouts::read("0,0,0"), None);
        let set = Setting::new("statement_timeout", "80ms", false).unwrap();
        assert_eq!(timeouts.with(&set).flush(), Some(ms(20)));
        assert_eq!(timeouts.strictest(Timeouts::read("0,0,30s,1min").unwrap()).quiet(), Some(ms(3_000)));
        assert_eq!(Setting::new("work_mem", "80", false), None);
    }

    #[test]
    fn flushes_begin_small_and_grow_by_what_they_took() {
        let limit = ms(250);
        let mut paces = Paces::default();
        let most =
            |paces: &Paces| (1..100_000).take_while(|&work| paces.is_in_time([(1, work)].into_iter(), limit)).last();
        assert_eq!(most(&paces), Some(12));
        paces.measured(&[(1, 12)], ms(24));
        assert_eq!(most(&paces), Some(96), "no more than so much at once");
        paces.measured(&[(1, 96)], ms(192));
        assert_eq!(most(&paces), Some(125), "2 ms a row");
        // Slower now, and faster again.
        paces.measured(&[(1, 125)], ms(500));
        assert_eq!(most(&paces), Some(62));
        paces.measured(&[(1, 62)], ms(6));
        assert_eq!(most(&paces), Some(496));
        // A small one says nothing against it, however far the server is.
        paces.answered(ms(3));
        paces.measured(&[(1, 1)], ms(4));
        assert_eq!(most(&paces), Some(496));
    }

    #[test]
    fn a_long_timeout_lets_many_rows_go_at_once_whatever_was_measured_of_few() {
        let mut paces = Paces::default();
        let is_in_time = |paces: &Paces, work| paces.is_in_time([(1, work)].into_iter(), ms(7_500));
        assert!(is_in_time(&paces, 375) && !is_in_time(&paces, 376));
        paces.measured(&[(1, 1)], ms(2));
        assert!(is_in_time(&paces, 375) && !is_in_time(&paces, 376));
        paces.measured(&[(1, 375)], ms(4));
        assert!(is_in_time(&paces, 3_000) && !is_in_time(&paces, 3_001));
    }

    #[test]
    fn the_times_of_all_tables_of_a_flush_count() {
        let mut paces = Paces::default();
        paces.measured(&[(1, 100), (2, 100)], ms(100));
        assert!(paces.is_in_time([(1, 100), (2, 100)].into_iter(), ms(200)));
        assert!(!paces.is_in_time([(1, 100), (2, 100)].into_iter(), ms(199)));
        assert!(!paces.is_in_time([(1, 10), (3, 10)].into_iter(), ms(200)), "one that nothing is known of");
    }
}
