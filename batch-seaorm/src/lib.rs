//! Batched writes for SeaORM on Postgres: code that inserts model by model, unchanged, reaches the database as one flush.
//!
//! ```no_run
//! use batch_seaorm::DatabaseTransaction; // was: use sea_orm::DatabaseTransaction;
//! use sea_orm::{ActiveModelTrait, ConnectionTrait, Database, DbErr, TransactionSession, TransactionTrait};
//!
//! # async fn example<M>(models: Vec<M>) -> Result<(), DbErr>
//! # where M: ActiveModelTrait + sea_orm::ActiveModelBehavior + Send,
//! #       <M::Entity as sea_orm::EntityTrait>::Model: sea_orm::IntoActiveModel<M> {
//! let db = Database::connect("postgres://localhost/blog").await?;
//! let db = batch_seaorm::enable_batch_inserts(&db).await?; // once, at start-up
//!
//! let txn = db.begin().await?;
//! for model in models {
//!     let inserted = model.insert(&txn).await?; // the id is there; nothing was sent
//! }
//! txn.commit().await?; // the rows go out here
//! # Ok(())
//! # }
//! ```
//!
//! # Behavior
//!
//! ```text
//! program                        on the wire
//!
//! db.begin()                     BEGIN
//! post.insert(&txn)                (waits; its id was reserved before)
//! tag.insert(&txn)                 (waits)
//! Post::find().all(&txn)         WITH s0 AS (INSERT INTO tag …), s1 AS (INSERT INTO post …) SELECT
//!                                SELECT … FROM post
//! tag.insert(&txn)                 (waits)
//! txn.commit()                   INSERT INTO tag …
//!                                COMMIT
//! ```
//!
//! An INSERT waits where the program cannot tell the difference, save for one: **a constraint that fails, fails at the
//! flush**, with the error that Postgres gives, out of the statement that caused the flush, the nested transaction or
//! the commit. Ways around it: [`DatabaseTransaction::flush`], a nested transaction, [`BatchOptions::exclude`].
//!
//! Whatever cannot wait is sent exactly as SeaORM wrote it; [`DatabaseConnection::explain`] and
//! [`DatabaseConnection::stats`] say what and why. The rows that an INSERT is answered with are sqlx's own rows, whatever
//! Rust types the program reads from them (`row.rs` says how), so that no entity has to be registered.
//!
//! # What takes one more step
//!
//! Migrations (`Migrator::up(&db, None)`) and, with the feature `schema-sync`, schema sync take this crate's connection. What
//! SeaORM hard-wires to its own takes [`DatabaseConnection::as_sea_orm`]. Statements on it, and on the pool behind it, are not
//! seen by batching: they must not change settings of a connection that stay when it goes back to the pool, and after a change of
//! the schema call [`DatabaseConnection::schema_changed`].

mod bind;
mod connection;
mod error;
mod group;
mod line;
mod row;
mod run;
mod schema;
mod seats;
mod stream;
mod transaction;

pub use batch_core::group::Shutdown;
pub use batch_core::{
    BatchOptions, Explanation, Fallback, FlushCause, GroupCommit, GroupStats, Nested, Reason, Stats, TableExplanation,
    WhenFull,
};
pub use connection::{DatabaseConnection, DbConn, RowStream};
pub use transaction::DatabaseTransaction;

use sea_orm::DbErr;

/// Turns batching on for the database that `db` leads to, and gives the connection that batches: a pool as `db` is, and
/// the same one.
///
/// Reads the catalog on one of its connections. Where it cannot be read, as the role may not or a timeout is short, the program
/// goes on: a warning says so, and inserts are sent one by one until a later try succeeds.
///
/// # Errors
///
/// [`DbErr::Conn`] where `db` is no Postgres, SeaORM's own where no
/// connection can be had, and [`DbErr::Custom`] where the server is no PostgreSQL 13 or later.
pub async fn enable_batch_inserts(db: &sea_orm::DatabaseConnection) -> Result<DatabaseConnection, DbErr> {
    enable_batch_inserts_with(db, BatchOptions::new()).await
}

/// Like [`enable_batch_inserts`], with options. Called again, transactions that begin later go by the new options.
///
/// # Errors
///
/// See [`enable_batch_inserts`].
pub async fn enable_batch_inserts_with(
    db: &sea_orm::DatabaseConnection,
    options: BatchOptions,
) -> Result<DatabaseConnection, DbErr> {
    let db = DatabaseConnection::try_from(db.clone())?;
    db.enable_batch_inserts_with(options).await?;
    Ok(db)
}
