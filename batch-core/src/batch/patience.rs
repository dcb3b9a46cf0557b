//! How long the rows of a connection wait, and how many of them go out at once (`patience.rs`).

use std::time::Instant;

use super::{Batch, Offer, Step};
use crate::answer::Answer;
use crate::database::lock;
use crate::patience::{Timeouts, work};
use crate::pending::Segment;
use crate::recognise::Recognised;
use crate::stats::FlushCause;

/// What is known of a session's timeouts, and since when it waits.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The session's own timeouts, where it was asked or set them; else they are those of its login.
    session: Option<Timeouts>,
    /// They were set by a statement.
    were_set: bool,
    /// The transaction's own.
    transaction: Option<Timeouts>,
    /// Set on a connection of the pool, nobody knows which.
    of_pool: Option<Timeouts>,
    /// The oldest row came then.
    waits_since: Option<Instant>,
    /// The server has heard nothing since.
    quiet_since: Option<Instant>,
    asked_at: Option<Instant>,
    flush: Option<Measured>,
}

/// A flush whose time is measured.
#[derive(Debug)]
struct Measured {
    /// By table.
    work: Vec<(u32, usize)>,
    sent_at: Option<Instant>,
}

impl Patience {
    /// That of a transaction on some connection of the pool.
    pub(super) fn of_transaction(&self) -> Self {
        Self { of_pool: self.of_pool, ..Self::default() }
    }

    /// A transaction of the pool has ended, or a statement ran on one of its connections.
    pub(super) fn absorb(&mut self, ended: &Self) {
        let set = ended.session.filter(|_| ended.were_set);
        for timeouts in set.into_iter().chain(ended.of_pool) {
            self.of_pool = Some(self.of_pool.map_or(timeouts, |known| known.strictest(timeouts)));
        }
    }

    /// The pool has no session of its own.
    pub(super) fn ran_outside(&mut self) {
        let ran = std::mem::take(self);
        self.of_pool = ran.of_pool;
        self.absorb(&ran);
    }

    pub(super) fn transaction_ended(&mut self) {
        self.transaction = None;
        self.flush = None;
    }

    /// The server has answered something.
    pub(super) fn heard(&mut self) {
        self.quiet_since = Some(Instant::now());
    }

    /// A row waits, and is the first.
    pub(super) fn begins_to_wait(&mut self) {
        self.waits_since = Some(Instant::now());
    }

    pub(super) fn asked(&mut self) {
        self.asked_at = Some(Instant::now());
    }

    /// A statement of the flush is sent.
    pub(super) fn sent(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush.sent_at.get_or_insert_with(Instant::now);
        }
    }

    /// The flush goes on by itself: when it is done is not seen.
    pub(super) fn launched(&mut self) {
        self.flush = None;
    }
}

impl Batch {
    /// The timeouts that count now, as far as is known.
    pub(super) fn timeouts(&self) -> Timeouts {
        let Patience { session, transaction, of_pool, .. } = &self.patience;
        let of_login = || self.session.catalog.as_ref().map(|catalog| catalog.timeouts);
        let known = transaction.or(*session).or_else(of_login).unwrap_or_default();
        of_pool.map_or(known, |of_pool| of_pool.strictest(known))
    }

    /// The server said what they are.
    pub(super) fn timeouts_came(&mut self, timeouts: Timeouts) {
        if self.transaction.session_changed {
            self.patience.transaction = Some(timeouts);
        } else {
            self.patience.session = Some(timeouts);
        }
    }

    /// A statement of the program may have set some.
    pub(super) fn note_timeout(&mut self, recognised: &Recognised) {
        for setting in recognised.timeouts() {
            let now = self.timeouts();
            if self.transaction.open {
                self.patience.transaction = Some(now.with(setting));
            }
            if !setting.is_local {
                let set = now.with(setting);
                self.patience.were_set = true;
                // It may be rolled back.
                self.patience.session = Some(if self.transaction.open { set.strictest(now) } else { set });
            }
        }
    }

    /// Whether the server has heard nothing for so long in the transaction that this call has to send something.
    pub(super) fn keeps_quiet(&self) -> bool {
        let Some(limit) = self.timeouts().quiet().filter(|_| self.is_on_server()) else { return false };
        self.patience.quiet_since.is_some_and(|since| since.elapsed() >= limit)
    }

    /// Whether what waits has waited for long enough.
    fn is_due(&self) -> bool {
        if self.pending.is_empty() && !self.pending.holds_savepoint() {
            return false;
        }
        let is_old = self.patience.waits_since.is_some_and(|since| since.elapsed() >= self.options.max_age);
        is_old && !self.pending.is_empty() || self.keeps_quiet()
    }

    /// Answers a statement that is not sent, once what waits is out where it has waited for too long.
    pub(super) fn answer(&mut self, answer: Answer) -> Option<Step> {
        if !self.is_due() {
            return Some(Step::Answer(answer));
        }
        self.start_flush(FlushCause::Time);
        self.offer = Some(Offer::Answered(answer));
        None
    }

    /// Whether a flush with these rows as well might take longer than the server's timeouts allow one statement.
    pub(super) fn takes_too_long(&self, table: u32, rows: usize, bytes: usize) -> bool {
        let Some(limit) = self.timeouts().flush() else { return false };
        let joining = work(rows, bytes);
        let waits = self.pending.work().any(|(waiting, _)| waiting == table);
        let waiting =
            self.pending.work().map(|(waiting, work)| (waiting, work + if waiting == table { joining } else { 0 }));
        let new = (!waits).then_some((table, joining));
        !lock(&self.database.paces).is_in_time(waiting.chain(new), limit)
    }

    /// The rows of these segments are about to be sent.
    pub(super) fn measure(&mut self, segments: &[Segment]) {
        if self.timeouts().flush().is_none() {
            return;
        }
        let mut by_table: Vec<(u32, usize)> = Vec::new();
        for (table, work) in segments.iter().flat_map(Segment::work) {
            match by_table.iter_mut().find(|(known, _)| *known == table) {
                Some((_, known)) => *known += work,
                None => by_table.push((table, work)),
            }
        }
        self.patience.flush = Some(Measured { work: by_table, sent_at: None });
    }

    /// What was sent last is done, and went well or not.
    pub(super) fn note_time(&mut self, ok: bool) {
        self.patience.heard();
        if let Some(asked_at) = self.patience.asked_at.take() {
            lock(&self.database.paces).answered(asked_at.elapsed());
            return;
        }
        if !self.outbox.is_empty() && ok {
            return;
        }
        let Some(Measured { work, sent_at: Some(sent_at) }) =
            self.patience.flush.take_if(|flush| flush.sent_at.is_some())
        else {
            return;
        };
        let time = sent_at.elapsed();
        // One that failed early says nothing.
        if ok || self.timeouts().flush().is_some_and(|limit| time > limit) {
            lock(&self.database.paces).measured(&work, time);
        }
    }
}
