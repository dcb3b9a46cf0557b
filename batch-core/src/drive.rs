//! What adapters share that drive the engine: the loop of the async ones, and a guard for futures that are dropped.

use std::sync::Arc;

use crate::answer::{Answer, Rows};
use crate::batch::{Batch, Step};
use crate::error::Error;
use crate::failure::Failure;
use crate::group::{Joined, Pass, Request};
use crate::recognise::Recognised;
use crate::statement::{Binds, Query, TextRow};

/// The connection of an async adapter, as the engine's statements are run on it.
pub trait Line: Send {
    /// The ORM's or driver's error.
    type Error: Send;

    /// Keeps an error, so that [`Line::give`] can give it more than once.
    fn keep(error: Self::Error) -> Failure;

    /// Gives an error that was kept. Each time it says the same.
    fn give(failure: &Failure) -> Self::Error;

    /// Runs a statement of the engine.
    fn run(&mut self, query: &Query) -> impl Future<Output = Result<Vec<TextRow>, Self::Error>> + Send;

    /// Lets the query run while the program goes on; gives it back where that cannot be.
    ///
    /// # Errors
    ///
    /// The query, to be run as any other.
    fn launch(&mut self, query: Query) -> Result<(), Query>;

    /// Whether the query that was launched is done.
    fn has_landed(&self) -> bool;

    /// Waits for the query that was launched, and gives its result.
    fn land(&mut self) -> impl Future<Output = Result<Vec<TextRow>, Self::Error>> + Send;

    /// Lets other tasks of the runtime run.
    fn yield_now(&self) -> impl Future<Output = ()> + Send;

    /// Lets an INSERT join a group, where the engine was told that the adapter [can](Batch::joins_groups).
    fn join(&mut self, request: Request) -> impl Future<Output = Joined<Rows, Self::Error>> + Send {
        drop(request);
        async { Joined::Alone(Pass::free()) }
    }

    /// The engine's refusal as an error of this kind; [`Error::lost`] among them.
    fn refused(error: Error) -> Self::Error;
}

/// What a statement is answered with, or that it is to be sent; then [`StepGuard::sent`] has to be called.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Nothing is sent.
    Answer(Answer),
    /// It is to be sent as it is.
    Send(StepGuard<'a>),
}

/// Offers a statement and does what the engine says.
///
/// # Errors
///
/// Of the engine's statements, or its refusal.
pub async fn offer<'a, L: Line>(
    line: &mut L,
    batch: &'a mut Batch,
    recognised: Arc<Recognised>,
    binds: Binds,
) -> Result<Outcome<'a>, L::Error> {
    if line.has_landed() {
        batch.landed();
    }
    if batch.is_time_to_yield() {
        line.yield_now().await;
    }
    drive(line, batch, |batch| batch.offer(recognised, binds)).await
}

/// Begins a step and does what the engine says until there is an answer or the statement is to be sent.
///
/// # Errors
///
/// Of the engine's statements, or its refusal.
pub async fn drive<'a, L: Line>(
    line: &mut L,
    batch: &'a mut Batch,
    begin: impl FnOnce(&mut Batch) -> Step,
) -> Result<Outcome<'a>, L::Error> {
    let mut guard = StepGuard::new(batch);
    let mut step = begin(guard.batch());
    loop {
        let result = match step {
            Step::Send => return Ok(Outcome::Send(guard)),
            Step::Answer(answer) => {
                guard.done();
                return Ok(Outcome::Answer(answer));
            }
            Step::Refuse(error) => {
                guard.done();
                return Err(L::refused(error));
            }
            Step::Raise(failure) => {
                guard.done();
                return Err(L::give(&failure));
            }
            Step::Join(request) => {
                let joined = line.join(*request).await;
                step = guard.batch().joined(joined, L::keep);
                continue;
            }
            Step::Land => line.land().await,
            Step::Run(query) => {
                let launched = if query.ahead { line.launch(query) } else { Err(query) };
                match launched {
                    Ok(()) => {
                        step = guard.batch().launched();
                        continue;
                    }
                    Err(query) => line.run(&query).await,
                }
            }
        };
        step = match result {
            Ok(rows) => guard.batch().ran(&rows),
            Err(error) => guard.batch().failed(L::keep(error)),
        };
    }
}

/// The engine in the middle of a step. Dropped there, as a future may be, it tells the engine ([`Batch::cancelled`]).
#[derive(Debug)]
pub struct StepGuard<'a> {
    batch: &'a mut Batch,
    done: bool,
}

impl<'a> StepGuard<'a> {
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

impl Drop for StepGuard<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.batch.cancelled();
        }
    }
}
