//! A transaction that is aborted: by whom, and what the program is told of it (`failure.rs`).

use super::{Batch, Offer, Running, Step};
use crate::answer::Answer;
use crate::eligible::Reason;
use crate::error::Error;
use crate::failure::{AbortedBy, Failure, OwnFailure};
use crate::recognise::{Kind, Recognised};
use crate::statement::{Purpose, Query};
use crate::stats::FlushCause;

impl Batch {
    /// Whether a COMMIT could be a success, without one: for the transaction of a test, which the ORM rolls back by itself
    /// whatever the test says. Sends what waits; raises its error, and that of rows that failed before.
    pub fn conclude(&mut self) -> Step {
        self.offer = Some(Offer::Conclude);
        self.advance()
    }

    pub(super) fn aborted_by_program(&mut self) {
        if self.transaction.open {
            self.transaction.aborted.get_or_insert(AbortedBy::Program);
        }
    }

    /// The first failure counts. To be told before what waits is discarded.
    pub(super) fn aborted_by_engine(&mut self, failure: &Failure) {
        if !self.is_on_server() || self.transaction.aborted.is_some() {
            return;
        }
        let mut unset_savepoints: Vec<String> = self.transaction.savepoints_ahead.drain(..).collect();
        unset_savepoints.extend(self.pending.savepoints().map(str::to_owned));
        let failure = failure.clone();
        self.transaction.aborted = Some(AbortedBy::Engine(OwnFailure { failure, unset_savepoints }));
    }

    /// Gives the program an error, once the transaction has ended where that is what it asked for: a COMMIT that fails
    /// leaves none open.
    pub(super) fn raise(&mut self, failure: Failure, commits: bool) -> Step {
        self.offer = None;
        self.raising = Some(failure);
        if commits && self.is_on_server() {
            self.outbox.push_back(Query::new(Purpose::Control, "ROLLBACK"));
        } else if commits {
            self.end_transaction();
        }
        self.advance()
    }

    /// What would be a success although rows of the program failed, or would hide that they did, fails with their error.
    pub(super) fn raise_again(&mut self, recognised: &Recognised) -> Option<Step> {
        let Some(AbortedBy::Engine(own)) = &mut self.transaction.aborted else { return None };
        let stands = match recognised.first() {
            // In whatever form; and it says more than that the transaction is aborted.
            Kind::Commit | Kind::Release(_) => true,
            Kind::RollbackTo(savepoint) => own.outlasts(savepoint),
            _ => false,
        };
        let failure = own.failure.clone();
        stands.then(|| self.raise(failure, recognised.commits()))
    }

    /// Whether rows wait and the transaction may be aborted: rows that fail then may have failed by themselves, or not.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self.transaction.aborted, Some(AbortedBy::Program)) && !self.pending.is_empty()
    }

    /// Asks the server whether the transaction is aborted: the rows' own error must not be taken for that, which COMMIT does
    /// not tell, nor the other way round.
    pub(super) fn probe(&mut self) -> Step {
        if self.flight.is_some() {
            return self.start_landing();
        }
        self.running = Some(Running::Probe);
        Step::Run(Query::new(Purpose::Control, "SELECT 1"))
    }

    /// It is, by a statement of the program's. The rows are lost with it, as they would be, and what follows fails by itself.
    pub(super) fn probe_failed(&mut self, failure: Failure) -> Step {
        self.discard_pending();
        if let Some(Offer::Flush) = self.offer {
            return self.raise(failure, false);
        }
        self.doubt_is_over();
        self.advance()
    }

    /// An INSERT that was in doubt is sent: its binds were not asked for.
    pub(super) fn doubt_is_over(&mut self) {
        let Some(Offer::Statement { recognised, send, .. }) = &mut self.offer else { return };
        let Kind::Insert(insert) = &recognised.kind else { return };
        *send = true;
        let table = insert.table.to_string();
        self.note_sent(&table, Reason::Aborted);
        self.start_flush(FlushCause::InsertSentAtOnce);
    }

    /// Decides about `flush()` and [`Batch::conclude`]; `None` to look again.
    pub(super) fn settle(&mut self, offer: Offer) -> Option<Step> {
        if self.transaction.is_lost {
            return Some(Step::Refuse(Error::cancelled()));
        }
        if let Some(AbortedBy::Engine(own)) = &self.transaction.aborted {
            let failure = own.failure.clone();
            return Some(self.raise(failure, false));
        }
        let is_in_doubt = self.is_in_doubt();
        if !is_in_doubt && self.pending.is_empty() && !self.pending.holds_savepoint() {
            return Some(Step::Answer(Answer::default()));
        }
        self.offer = Some(offer);
        if is_in_doubt {
            return Some(self.probe());
        }
        self.start_flush(FlushCause::Explicit);
        None
    }
}
