//! What adapters share that run the engine's statements: a guard for futures that are dropped, and which error counts.

use crate::batch::Batch;
use crate::statement::Purpose;

/// The engine in the middle of a step. Dropped there, as a future may be, it tells the engine ([`Batch::cancelled`]).
#[derive(Debug)]
pub struct Running<'a> {
    batch: &'a mut Batch,
    done: bool,
}

impl<'a> Running<'a> {
    /// A step begins.
    pub fn new(batch: &'a mut Batch) -> Self {
        Self { batch, done: false }
    }

    /// The engine, to offer it something or to tell it how its statement went.
    pub fn batch(&mut self) -> &mut Batch {
        self.batch
    }

    /// The statement that was to be sent was sent ([`Batch::sent`]).
    pub fn sent(mut self, ok: bool) {
        self.done = true;
        self.batch.sent(ok);
    }

    /// The step has come to its end without anything to send.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.batch.cancelled();
        }
    }
}

/// The error that the program gets where several of the engine's statements failed in one step.
#[derive(Debug)]
pub struct Cause<E>(Option<E>);

impl<E> Default for Cause<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E> Cause<E> {
    /// A statement of the engine failed: it is the cause of those that fail in cleaning up after it.
    pub fn note(&mut self, purpose: Purpose, error: E) {
        if purpose != Purpose::Control || self.0.is_none() {
            self.0 = Some(error);
        }
    }

    /// The error for [`Step::Raise`](crate::Step::Raise).
    pub fn into_error(self) -> Option<E> {
        self.0
    }
}
