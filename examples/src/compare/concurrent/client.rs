//! A client that inserts one row after the other, as its own transaction each, until the time is up.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Inserts before the time that is measured: connections are opened, statements prepared and the catalog read.
const WARM_UP: Duration = Duration::from_millis(500);

/// A row that is to be inserted. No two are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub client: i32,
    /// Of those of its client.
    pub number: i32,
    pub text: String,
}

/// When clients insert, and from when on it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    from: Instant,
    until: Instant,
}

impl Window {
    /// One of this length, after the warm-up that begins now.
    pub(super) fn open(length: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, until: from + length }
    }
}

/// One of those that insert at the same time.
#[derive(Debug)]
pub(super) struct Client {
    number: i32,
    window: Window,
    /// When the insert that is under way began.
    began: Instant,
    log: Log,
}

/// What a client did.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Of each row that it inserted, in their order.
    pub ids: Vec<i64>,
    /// Of each insert that ended while it was measured.
    pub latencies: Vec<Duration>,
}

impl Client {
    /// So many, numbered from 0.
    pub(super) fn several(count: usize, window: Window) -> impl Iterator<Item = Self> {
        (0..count as i32).map(move |number| Self { number, window, began: Instant::now(), log: Log::default() })
    }

    /// What it inserts next, from now on; nothing if the time is up.
    pub(super) fn begin(&mut self) -> Option<Event> {
        let event = event(self.number, self.log.ids.len() as i32);
        self.began = Instant::now();
        (self.began < self.window.until).then_some(event)
    }

    /// The insert is done, and gave it this row.
    ///
    /// # Errors
    ///
    /// If the row is another's.
    pub(super) fn end(&mut self, id: i64, row: Event) -> Result<()> {
        let now = Instant::now();
        let own = event(self.number, self.log.ids.len() as i32);
        ensure!(row == own, "{own:?} was inserted, and the row that came back is {row:?}");
        self.log.ids.push(id);
        if (self.window.from..self.window.until).contains(&now) {
            self.log.latencies.push(now - self.began);
        }
        Ok(())
    }

    /// It is done.
    pub(super) fn into_log(self) -> Log {
        self.log
    }
}

fn event(client: i32, number: i32) -> Event {
    Event { client, number, text: format!("event {number} of client {client}") }
}

/// What so many per cent of these, which ascend, do not exceed.
pub(super) fn percentile(ascending: &[Duration], percent: usize) -> Duration {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_what_so_many_do_not_exceed() {
        let ascending: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!([1, 50, 99, 100].map(|percent| percentile(&ascending, percent).as_millis()), [2, 100, 198, 200]);
        assert_eq!(percentile(&ascending[..1], 50).as_millis(), 1);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_client_notices_that_it_got_another_row_than_its_own() {
        let mut clients = Client::several(2, Window::open(Duration::from_secs(60)));
        let (mut one, mut other) = (clients.next().unwrap(), clients.next().unwrap());
        let (mine, theirs) = (one.begin().unwrap(), other.begin().unwrap());
        other.end(1, theirs.clone()).unwrap();
        assert!(one.end(1, theirs).unwrap_err().to_string().contains("event 0 of client 1"));
        one.end(2, mine.clone()).unwrap();
        assert_ne!(one.begin().unwrap(), mine);
        // The warm-up does not count.
        let log = one.into_log();
        assert_eq!((log.ids, log.latencies), (vec![2], vec![]));
    }

    #[test]
    fn a_client_ends_when_the_time_is_up() {
        let past = Instant::now();
        let mut client = Client::several(1, Window { from: past, until: past }).next().unwrap();
        assert_eq!(client.begin(), None);
    }
}
