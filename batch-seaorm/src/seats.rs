//! Which database each of the pool's connections leads to. sqlx replaces connections that are lost without a word, and gives
//! them no names: each is known by a statement that was prepared on it.

use std::sync::{Mutex, PoisonError};

use batch_core::{Batch, Seat};
use sea_orm::sqlx::postgres::PgStatement;
use sea_orm::sqlx::{self, Executor, PgConnection, SqlStr, Statement};

/// Prepared once on each connection, and then found in sqlx's own cache, without asking the server.
const MARK: &str = "SELECT 1 /* batched writes */";

#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By connection, the one used last at the end.
    seats: Vec<(Mark, Option<Seat>)>,
    /// The pool's connections keep no statements: none is known again.
    keeps_none: bool,
}

/// A connection. What was prepared on it is kept, so that no other has the same at the same address.
#[derive(Clone, Debug)]
pub(crate) struct Mark(PgStatement);

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.columns(), other.0.columns())
    }
}

/// More than a pool has connections, as a rule: one that is forgotten is asked again.
const MAX: usize = 512;

impl Seats {
    /// The connection, and its seat if that is known. The first time this is a round trip.
    pub(crate) async fn of(&self, conn: &mut PgConnection) -> Result<(Option<Mark>, Option<Seat>), sqlx::Error> {
        if self.lock().keeps_none {
            return Ok((None, None));
        }
        let mark = Mark(conn.prepare(SqlStr::from_static(MARK)).await?);
        let mut known = self.lock();
        if sqlx::Connection::cached_statements_size(conn) == 0 {
            known.keeps_none = true;
            return Ok((None, None));
        }
        let at = known.seats.iter().position(|(other, _)| *other == mark);
        let seat = at.and_then(|at| known.seats.remove(at).1);
        if known.seats.len() >= MAX {
            known.seats.remove(0);
        }
        known.seats.push((mark.clone(), seat.clone()));
        Ok((Some(mark), seat))
    }

    /// The batching of a transaction on this connection tells where it leads, if it has asked.
    pub(crate) fn learn(&self, mark: Option<&Mark>, batch: &Batch) {
        if let (Some(mark), Some(seat)) = (mark, batch.seat()) {
            self.note(mark, seat);
        }
    }

    pub(crate) fn note(&self, mark: &Mark, seat: Seat) {
        let mut known = self.lock();
        if let Some((_, of_it)) = known.seats.iter_mut().find(|(other, _)| other == mark) {
            *of_it = Some(seat);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
