//! Batched writes for Diesel on Postgres: code that inserts row by row, unchanged, reaches the database as one flush.
//!
//! ```no_run
//! use batch_diesel::PgConnection; // was: use diesel::PgConnection;
//! use diesel::prelude::*;
//!
//! diesel::table! {
//!     posts (id) {
//!         id -> Integer,
//!         title -> Text,
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut conn = PgConnection::establish("postgres://localhost/blog")?;
//!     batch_diesel::enable_batch_inserts(&mut conn)?; // once, for every connection to this database
//!
//!     conn.transaction(|conn| {
//!         for title in ["one", "two", "three"] {
//!             let id: i32 = diesel::insert_into(posts::table)
//!                 .values(posts::title.eq(title))
//!                 .returning(posts::id)
//!                 .get_result(conn)?;
//!             println!("{id}");
//!         }
//!         diesel::QueryResult::Ok(())
//!     })?; // the rows go out here
//!     Ok(())
//! }
//! ```
//!
//! # Behavior
//!
//! ```text
//! program                              on the wire
//!
//! conn.transaction(|conn| {            BEGIN
//!   insert_into(posts)…get_result(conn)  (waits; its id was reserved before)
//!   insert_into(tags)….execute(conn)     (waits)
//!   posts.load(conn)                   WITH s0 AS (INSERT INTO tags …), s1 AS (INSERT INTO posts …) SELECT
//!                                      SELECT … FROM posts
//!   insert_into(tags)….execute(conn)     (waits)
//! })                                   INSERT INTO tags …
//!                                      COMMIT
//! ```
//!
//! An INSERT waits where the program cannot tell the difference, save for one: **a constraint that fails, fails at the
//! flush**, with the error that Postgres gives, out of the statement that caused the flush, the nested transaction or
//! the commit. Ways around it: [`PgConnection::flush`], a nested transaction, [`BatchOptions::exclude`].
//!
//! Whatever cannot wait is sent exactly as Diesel wrote it; [`PgConnection::explain`] and [`PgConnection::stats`] say
//! what and why.
//!
//! # What takes one more step
//!
//! `copy_to(…).load(conn)` is bound to Diesel's own connection type by a trait that cannot be named outside Diesel: use
//! [`PgConnection::with_diesel`]. Everything else takes `batch_diesel::PgConnection` where it took Diesel's.

#[cfg(feature = "async")]
mod asynchronous;
mod bind;
mod connection;
mod copy;
mod enable;
mod error;
mod group;
mod inner;
mod recognise;
mod row;
mod run;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncCallback, AsyncPgConnection, AsyncTransactionBuilder, RowStream};
pub use batch_core::group::Shutdown;
pub use batch_core::{
    BatchOptions, Explanation, Fallback, FlushCause, GroupCommit, GroupStats, Nested, Reason, Stats, TableExplanation,
    WhenFull,
};
pub use connection::PgConnection;
pub use enable::BatchInserts;
pub use row::{AllRows, Cursor, Field, Row};

/// Turns batching on for the database that `conn` leads to: for this connection and every other of this process,
/// pooled ones and later ones too.
///
/// Reads the catalog on `conn`. Where it cannot be read, as the role may not or a timeout is short, the program goes on: a warning
/// says so, and inserts are sent one by one until a later try succeeds. On an `AsyncPgConnection` it gives a future:
/// `enable_batch_inserts(&mut conn).await?`.
///
/// # Errors
///
/// That of a connection that is lost, or [`diesel::result::Error::QueryBuilderError`] where the server is no PostgreSQL 13 or
/// later. Connections then stay as they were: plain pass-throughs.
pub fn enable_batch_inserts<C: BatchInserts>(conn: &mut C) -> C::Enabled<'_> {
    enable_batch_inserts_with(conn, BatchOptions::new())
}

/// Like [`enable_batch_inserts`], with options. Called again, transactions that begin later go by the new options.
///
/// # Errors
///
/// See [`enable_batch_inserts`].
pub fn enable_batch_inserts_with<C: BatchInserts>(conn: &mut C, options: BatchOptions) -> C::Enabled<'_> {
    conn.enable_with(options)
}
