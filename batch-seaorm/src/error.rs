//! The engine's errors as SeaORM's.

use std::sync::Arc;

use sea_orm::sqlx;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// What SeaORM makes of an error of a statement, by what the program called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Called {
    Exec,
    Query,
}

impl Called {
    pub(crate) fn error(self, error: Failure) -> DbErr {
        match error {
            Failure::Refused(message) => DbErr::Custom(message),
            Failure::Sqlx(error) => match self {
                Self::Exec => DbErr::Exec(RuntimeErr::SqlxError(error)),
                Self::Query => DbErr::Query(RuntimeErr::SqlxError(error)),
            },
        }
    }
}

/// Why a statement failed. The program may have to be given it more than once.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Sqlx(Arc<sqlx::Error>),
    /// The engine refused it.
    Refused(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(Arc::new(error))
    }
}

pub(crate) fn acquire(error: sqlx::Error) -> DbErr {
    match error {
        sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))),
    }
}

pub(crate) fn not_postgres(what: &str) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!(
        "batched writes are for Postgres, but this connection is {what}: keep using SeaORM's own type for it"
    )))
}
