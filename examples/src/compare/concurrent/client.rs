//! A client that inserts one row after the other, as its own transaction each, until the time is up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Inserts before the time that is measured: connections are opened, statements prepared and the catalog read.
const WARM_UP: Duration = Duration::from_millis(500);

/// A row that is to be inserted. No two are alike, but for the text of those that are to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub client: i32,
    /// Of those of its client.
    pub number: i32,
    pub text: String,
}

/// What came of an insert: the row with its id, or nothing where its text is taken.
pub(super) type Inserted = Option<(i64, Event)>;

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
    /// Of a hundred inserts, so many have a text that is taken.
    duplicates: u32,
    /// Inserts that have begun.
    begun: u32,
    /// When the insert that is under way began, and what it inserts.
    began: Instant,
    event: Option<Event>,
    log: Log,
}

/// What a client did.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Of each row that it inserted, in their order.
    pub ids: Vec<i64>,
    /// Of each insert that ended while it was measured, those that failed as they had to among them.
    pub latencies: Vec<Duration>,
}

impl Client {
    /// So many, numbered from 0.
    pub(super) fn several(count: usize, duplicates: u32, window: Window) -> impl Iterator<Item = Self> {
        (0..count as i32).map(move |number| Self {
            number,
            window,
            duplicates,
            begun: 0,
            began: Instant::now(),
            event: None,
            log: Log::default(),
        })
    }

    /// What it inserts next, from now on; nothing if the time is up.
    pub(super) fn begin(&mut self) -> Option<Event> {
        let mut event = event(self.number, self.log.ids.len() as i32);
        if self.is_to_fail() {
            event.text = text(self.number, 0);
        }
        self.begun += 1;
        self.event = Some(event.clone());
        self.began = Instant::now();
        (self.began < self.window.until).then_some(event)
    }

    /// Spread evenly over its inserts, and not at the same time as those of other clients.
    fn is_to_fail(&self) -> bool {
        let turn = self.begun.wrapping_add(self.number.unsigned_abs().wrapping_mul(7)) % 100;
        !self.log.ids.is_empty() && turn * self.duplicates % 100 < self.duplicates
    }

    /// The insert is done.
    ///
    /// # Errors
    ///
    /// If the row is another's, or if it failed and should not have, or the other way round.
    pub(super) fn end(&mut self, inserted: Inserted) -> Result<()> {
        let now = Instant::now();
        let own = self.event.take().context("nothing was begun")?;
        let is_taken = own.text != text(own.client, own.number);
        match inserted {
            Some((id, row)) => {
                ensure!(row == own && !is_taken, "{own:?} was inserted, and the row that came back is {row:?}");
                self.log.ids.push(id);
            }
            None => ensure!(is_taken, "the text of {own:?} is said to be taken"),
        }
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
    Event { client, number, text: text(client, number) }
}

fn text(client: i32, number: i32) -> String {
    format!("event {number} of client {client}")
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

    fn clients(count: usize, duplicates: u32) -> Vec<Client> {
        Client::several(count, duplicates, Window::open(Duration::from_secs(60))).collect()
    }

    #[test]
    fn a_client_notices_that_it_got_another_row_than_its_own() {
        let [one, other] = &mut clients(2, 0)[..] else { panic!("there are two") };
        let (mine, theirs) = (one.begin().unwrap(), other.begin().unwrap());
        other.end(Some((1, theirs.clone()))).unwrap();
        assert!(one.end(Some((1, theirs))).unwrap_err().to_string().contains("event 0 of client 1"));
        assert_eq!(one.begin(), Some(mine.clone()));
        one.end(Some((2, mine.clone()))).unwrap();
        assert_ne!(one.begin().unwrap(), mine);
        // The warm-up does not count.
        assert_eq!((&one.log.ids, &one.log.latencies), (&vec![2], &vec![]));
    }

    #[test]
    fn so_many_of_a_hundred_inserts_have_a_text_that_is_taken() {
        let client = &mut clients(1, 5)[0];
        let mut taken = 0;
        for id in 0..200 {
            let event = client.begin().unwrap();
            let is_taken = event.text != text(0, event.number);
            taken += u32::from(is_taken);
            client.end((!is_taken).then_some((id, event))).unwrap();
        }
        assert!((9..=10).contains(&taken), "{taken} of 200 at 5 %");
    }

    #[test]
    fn a_client_notices_that_an_insert_failed_and_should_not_have_or_the_other_way_round() {
        let client = &mut clients(1, 100)[0];
        let first = client.begin().unwrap();
        assert!(client.end(None).unwrap_err().to_string().contains("said to be taken"));
        client.begin();
        client.end(Some((1, first))).unwrap();
        let taken = client.begin().unwrap();
        assert!(client.end(Some((2, taken))).is_err());
    }

    #[test]
    fn a_client_ends_when_the_time_is_up() {
        let past = Instant::now();
        let mut client = Client::several(1, 0, Window { from: past, until: past }).next().unwrap();
        assert_eq!(client.begin(), None);
    }
}
