//! Scenarios written once and run against every adapter.
//!
//! A scenario is a function over an [`Adapter`]. It talks SQL as the ORM writes it, with binds in Postgres' binary
//! format, and reads rows as the ORM got them, byte for byte. What an ORM's own types and traits need is tested in the
//! adapter's own file under `tests/`.

#![allow(clippy::unwrap_used, reason = "this package is tests")]
#![allow(clippy::result_large_err, reason = "a failure carries all that a test compares")]

pub mod adapter;
pub mod diesel_adapter;
pub mod diesel_async_adapter;
pub mod scenarios;
pub mod seaorm_adapter;
pub mod value;

pub use adapter::{Adapter, Batching, Failure, Outcome, Session, World};
pub use value::{Cell, Value};
