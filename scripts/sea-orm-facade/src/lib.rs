//! `sea_orm` for SeaORM's own tests: everything is SeaORM's, save for the connection and the transaction.
//!
//! | features | `DatabaseConnection` | `DatabaseTransaction` |
//! |---|---|---|
//! | none | batch-seaorm's | batch-seaorm's |
//! | `held` | one that can hold a transaction of batch-seaorm open | batch-seaorm's |
//! | `plain` | the same over SeaORM's own | SeaORM's |

pub mod harness;
#[cfg(feature = "held")]
mod held;

pub use original::*;

#[cfg(not(feature = "held"))]
pub use batch_seaorm::DatabaseConnection;
#[cfg(not(feature = "plain"))]
pub use batch_seaorm::DatabaseTransaction;
#[cfg(feature = "held")]
pub use held::DatabaseConnection;

/// Short name of [`DatabaseConnection`], as in SeaORM.
pub type DbConn = DatabaseConnection;

/// [`original::entity`], whose prelude names the connection.
pub mod entity {
    pub use original::entity::*;

    /// [`original::entity::prelude`].
    pub mod prelude {
        pub use crate::{DatabaseConnection, DbConn};
        pub use original::entity::prelude::*;
    }
}
pub use entity::prelude;

/// [`original::Database`], whose connections batch.
#[derive(Debug)]
pub struct Database;

impl Database {
    /// See [`original::Database::connect`].
    ///
    /// # Errors
    ///
    /// SeaORM's own, and those of turning batching on.
    pub async fn connect<C>(options: C) -> Result<DatabaseConnection, DbErr>
    where
        C: Into<ConnectOptions>,
        ConnectOptions: From<C>,
    {
        let db = original::Database::connect(options).await?;
        #[cfg(not(feature = "plain"))]
        let db = batch_seaorm::enable_batch_inserts(&db).await?;
        #[cfg(feature = "held")]
        let db = DatabaseConnection::new(db);
        harness::opened(&db);
        Ok(db)
    }
}
