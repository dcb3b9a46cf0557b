//! The ways of writing rows: each connects, writes a few rows to warm up, waits for the signal, and writes the rest in
//! one transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::{self, Runtime};

mod diesel;
mod diesel_async;
mod driver;
mod seaorm;

/// The table that all of them write to.
pub const SCHEMA: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, age int4 NOT NULL)";

/// Rows of a chunk, where a way writes in chunks.
const CHUNK: usize = 1_000;
/// Rows of the transaction before the one that is measured: a service has statements prepared and ids in stock.
pub(super) const WARM_UP: usize = 100;

/// What a way is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ORM, row by row: what its other ways are compared with.
    Plain,
    /// An ORM's own bulk API, or a driver's.
    Bulk,
    /// Row by row with batching.
    Batched,
    /// The limit: binary COPY.
    Copy,
}

/// One way of writing rows.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As the command line and the tables call it.
    pub name: &'static str,
    /// What is compared with what.
    pub kind: Kind,
    /// Which way row by row this one is compared with.
    pub plain: &'static str,
    run: fn(&mut Job) -> Result<Duration>,
}

/// What a way has to do.
pub struct Job<'a> {
    /// Where the database is.
    pub url: &'a str,
    /// How many rows to write in the transaction that is measured.
    pub rows: usize,
    /// Says that all is ready, and waits until the work may begin.
    pub ready: &'a mut dyn FnMut() -> Result<()>,
}

const DIESEL: &str = "Diesel, row by row";
const DIESEL_ASYNC: &str = "diesel-async, row by row";
const SEAORM: &str = "SeaORM, row by row";

/// All ways, each ORM's plain one before what is compared with it.
pub const WAYS: [Way; 15] = [
    Way { name: DIESEL, kind: Kind::Plain, plain: DIESEL, run: diesel::row_by_row },
    Way { name: "Diesel, values(&vec)", kind: Kind::Bulk, plain: DIESEL, run: diesel::in_chunks },
    Way { name: "Diesel, batched", kind: Kind::Batched, plain: DIESEL, run: diesel::batched },
    Way { name: "Diesel, batched, no ids asked", kind: Kind::Batched, plain: DIESEL, run: diesel::batched_without_ids },
    Way { name: DIESEL_ASYNC, kind: Kind::Plain, plain: DIESEL_ASYNC, run: diesel_async::row_by_row },
    Way { name: "diesel-async, values(&vec)", kind: Kind::Bulk, plain: DIESEL_ASYNC, run: diesel_async::in_chunks },
    Way { name: "diesel-async, batched", kind: Kind::Batched, plain: DIESEL_ASYNC, run: diesel_async::batched },
    Way {
        name: "diesel-async, batched, no ids asked",
        kind: Kind::Batched,
        plain: DIESEL_ASYNC,
        run: diesel_async::batched_without_ids,
    },
    Way { name: SEAORM, kind: Kind::Plain, plain: SEAORM, run: seaorm::row_by_row },
    Way { name: "SeaORM, insert_many", kind: Kind::Bulk, plain: SEAORM, run: seaorm::in_chunks },
    Way { name: "SeaORM, batched", kind: Kind::Batched, plain: SEAORM, run: seaorm::batched },
    Way { name: "SeaORM, batched, no ids asked", kind: Kind::Batched, plain: SEAORM, run: seaorm::batched_without_ids },
    Way { name: "unnest by hand", kind: Kind::Bulk, plain: DIESEL_ASYNC, run: driver::unnest },
    Way { name: "tokio-postgres, pipelined", kind: Kind::Bulk, plain: DIESEL_ASYNC, run: driver::pipelined },
    Way { name: "binary COPY", kind: Kind::Copy, plain: DIESEL_ASYNC, run: driver::copy },
];

impl Way {
    /// The way of this name.
    pub fn named(name: &str) -> Option<Way> {
        WAYS.into_iter().find(|way| way.name == name)
    }

    /// Does the job; how long the rows took, without connecting and warming up.
    ///
    /// # Errors
    ///
    /// Those of the database and of `job.ready`.
    pub fn run(self, mut job: Job<'_>) -> Result<Duration> {
        (self.run)(&mut job).with_context(|| self.name.to_owned())
    }
}

impl Job<'_> {
    /// Runs `write` for the rows that warm up and then, once the work may begin, for the others.
    fn time(&mut self, mut write: impl FnMut(usize) -> Result<()>) -> Result<Duration> {
        write(WARM_UP)?;
        (self.ready)()?;
        let start = Instant::now();
        write(self.rows)?;
        Ok(start.elapsed())
    }
}

/// The name of a row.
fn name(row: usize) -> String {
    format!("user {row}")
}

fn runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
