//! The engine behind batched writes for Diesel and SeaORM on Postgres. It knows no ORM and does no I/O.
//!
//! Applications use `batch-diesel` or `batch-seaorm`. This crate is for them, and for whoever writes another adapter.
//!
//! # Behavior
//!
//! An adapter offers every statement to a [`Batch`] before it runs it. INSERTs inside a transaction wait where the
//! program cannot tell the difference, and go out together:
//!
//! ```text
//! program                            on the wire, without     on the wire, with
//!
//! BEGIN                              BEGIN                    BEGIN
//! INSERT INTO posts … RETURNING id   INSERT … RETURNING
//! INSERT INTO tags …                 INSERT …
//! INSERT INTO posts … RETURNING id   INSERT … RETURNING
//! INSERT INTO tags …                 INSERT …
//! COMMIT                             COMMIT                   WITH s0 AS (INSERT INTO tags SELECT … unnest(…) …),
//!                                                                  s1 AS (INSERT INTO posts …) SELECT
//!                                                             COMMIT
//! ```
//!
//! The ids that `RETURNING` asks for were reserved from the sequence before, and are the ones that the rows get.
//!
//! # Example
//!
//! A driver of the engine, without a database:
//!
//! ```
//! use batch_core::{Batch, Binds, Step};
//!
//! let mut batch = Batch::new("postgres://localhost/shop");
//! // Off until somebody turns it on for this database:
//! assert!(!batch.is_on());
//!
//! let begin = batch.recognise("SELECT 1");
//! match batch.offer(begin, Binds::default()) {
//!     Step::Send => { /* send the statement, then: */ batch.sent(true) }
//!     Step::Run(query) => { /* run it, then batch.ran(&rows) or batch.failed(Failure::new(error)) */ }
//!     Step::Land => { /* only after batch.launched() */ }
//!     Step::Join(_) => { /* only after joins_groups(…): group::join(…), then batch.joined(…) */ }
//!     Step::Answer(answer) => { /* give the program answer.rows */ }
//!     Step::Refuse(error) => { /* give the program the error */ }
//!     Step::Raise(failure) => { /* give the program failure.error() */ }
//! }
//! ```

mod answer;
mod batch;
mod catalog;
mod database;
mod defaults;
pub mod drive;
mod eligible;
mod error;
mod failure;
mod flush;
pub mod group;
mod harmless;
mod identity;
mod ids;
#[cfg(feature = "ingest")]
pub mod ingest;
mod limits;
mod looks;
mod options;
mod patience;
mod pending;
mod readings;
mod recent;
mod recognise;
mod reserve;
mod settings;
mod site;
mod statement;
mod stats;
mod stored;

pub use answer::{Answer, Field, Rows};
pub use batch::{Asked, Batch, Seat, Step};
pub use eligible::Reason;
pub use error::Error;
pub use failure::Failure;
pub use options::{BatchOptions, GroupCommit, Nested, WhenFull};
pub use recognise::Recognised;
pub use statement::{BindType, Binds, Param, Purpose, Query, TextRow};
pub use stats::{Explanation, Fallback, FlushCause, GroupStats, Stats, TableExplanation};
