//! A way of doing a scenario's work: it connects, does a little of it to warm up, waits for the signal, and does the rest in
//! one transaction.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Rows of a chunk, where a way writes in chunks.
pub(super) const CHUNK: usize = 1_000;
/// Rows of a chunk of arrays, which are as large as the batches of the batched ways.
pub(super) const ARRAY_CHUNK: usize = 10_000;
/// How much is done in the transaction before the one that is measured: a service has statements prepared and ids in stock.
pub(super) const WARM_UP: usize = 100;

pub(super) const DIESEL: &str = "Diesel, row by row";
pub(super) const DIESEL_ASYNC: &str = "diesel-async, row by row";
pub(super) const SEAORM: &str = "SeaORM, row by row";

/// What a way is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ORM, row by row: what its other ways are compared with.
    Plain,
    /// An ORM's own bulk API, or a driver's.
    Bulk,
    /// Row by row with batching.
    Batched,
    /// The same, where nobody asks for the ids.
    BatchedNoIds,
    /// The limit: binary COPY.
    Copy,
}

/// One way of doing a scenario's work.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As the command line and the tables call it.
    pub name: &'static str,
    /// What is compared with what.
    pub kind: Kind,
    /// Which way row by row this one is compared with.
    pub plain: &'static str,
    run: Run,
}

/// Does the job; how long it took, without connecting and warming up.
type Run = fn(&mut Job<'_>) -> Result<Duration>;

/// What a way has to do.
pub struct Job<'a> {
    /// Where the database is.
    pub url: &'a str,
    /// How much to do in the transaction that is measured: rows, or whatever the scenario counts.
    pub rows: usize,
    /// What the scenario's yardstick says, or zero.
    pub yardstick: Duration,
    /// Says that all is ready, and waits until the work may begin.
    pub ready: &'a mut dyn FnMut() -> Result<()>,
}

impl Way {
    pub(super) const fn plain(name: &'static str, run: Run) -> Self {
        Self { name, kind: Kind::Plain, plain: name, run }
    }

    pub(super) const fn bulk(name: &'static str, plain: &'static str, run: Run) -> Self {
        Self { name, kind: Kind::Bulk, plain, run }
    }

    pub(super) const fn batched(name: &'static str, plain: &'static str, run: Run) -> Self {
        Self { name, kind: Kind::Batched, plain, run }
    }

    pub(super) const fn batched_no_ids(name: &'static str, plain: &'static str, run: Run) -> Self {
        Self { name, kind: Kind::BatchedNoIds, plain, run }
    }

    pub(super) const fn copy(name: &'static str, plain: &'static str, run: Run) -> Self {
        Self { name, kind: Kind::Copy, plain, run }
    }

    /// Does the job; how long it took, without connecting and warming up.
    ///
    /// # Errors
    ///
    /// Those of the database and of `job.ready`.
    pub fn run(self, mut job: Job<'_>) -> Result<Duration> {
        (self.run)(&mut job).with_context(|| self.name.to_owned())
    }
}

impl Job<'_> {
    /// Runs `work` for the rows that warm up and then, once it may begin, for those that follow them.
    pub(super) fn time(&mut self, mut work: impl FnMut(Range<usize>) -> Result<()>) -> Result<Duration> {
        work(0..WARM_UP)?;
        (self.ready)()?;
        let start = Instant::now();
        work(WARM_UP..WARM_UP + self.rows)?;
        Ok(start.elapsed())
    }
}

/// The rows in chunks of so many.
pub(super) fn chunks(rows: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(size).map(move |start| start..rows.end.min(start + size))
}
