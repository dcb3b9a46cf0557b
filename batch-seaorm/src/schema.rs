//! What changes the schema: SeaORM's schema sync, and sea-orm-migration.

use sea_orm::{DatabaseExecutor, IntoDatabaseExecutor};

use crate::connection::DatabaseConnection;

/// sea-orm-migration runs on SeaORM's own connection of the same pool, and batching hears of it only here: transactions
/// that begin from now on read the catalog anew. One that begins while migrations run may read it too early; then call
/// [`DatabaseConnection::schema_changed`] after them.
impl<'c> IntoDatabaseExecutor<'c> for &'c DatabaseConnection {
    fn into_database_executor(self) -> DatabaseExecutor<'c> {
        self.schema_changed();
        self.as_sea_orm().into()
    }
}

#[cfg(feature = "schema-sync")]
mod sync {
    use std::sync::Arc;
    use std::time::Instant;

    use sea_orm::sea_query::SelectStatement;
    use sea_orm::{DbBackend, Statement};
    use sea_schema::Connection;
    use sea_schema::sqlx_types::{SqlxError, SqlxRow};

    use crate::connection::DatabaseConnection;
    use crate::error::{Called, Failure};
    use crate::transaction::DatabaseTransaction;

    #[async_trait::async_trait]
    impl Connection for DatabaseConnection {
        async fn query_all(&self, select: SelectStatement) -> Result<Vec<SqlxRow>, SqlxError> {
            // Outside of transactions nothing waits, and reading the schema changes nothing.
            self.as_sea_orm().query_all(select).await
        }

        async fn query_all_raw(&self, sql: String) -> Result<Vec<SqlxRow>, SqlxError> {
            Connection::query_all_raw(self.as_sea_orm(), sql).await
        }
    }

    #[async_trait::async_trait]
    impl Connection for DatabaseTransaction {
        async fn query_all(&self, select: SelectStatement) -> Result<Vec<SqlxRow>, SqlxError> {
            rows(self, DbBackend::Postgres.build(&select)).await
        }

        async fn query_all_raw(&self, sql: String) -> Result<Vec<SqlxRow>, SqlxError> {
            rows(self, Statement::from_string(DbBackend::Postgres, sql)).await
        }
    }

    async fn rows(txn: &DatabaseTransaction, stmt: Statement) -> Result<Vec<SqlxRow>, SqlxError> {
        let start = Instant::now();
        let rows = txn.all_rows(&stmt).await;
        let other = |failure| SqlxError::AnyDriverError(Box::new(Called::Query.error(failure)));
        let rows = txn.measured(start, &stmt, rows).map_err(|failure| match failure {
            // A flush's error is kept, and so is shared.
            Failure::Sqlx(error) => Arc::try_unwrap(error).unwrap_or_else(|error| other(Failure::Sqlx(error))),
            refused => other(refused),
        })?;
        Ok(rows.into_iter().map(SqlxRow::Postgres).collect())
    }
}
