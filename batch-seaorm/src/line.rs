//! The connection of a transaction, which a flush may have for a while.

use batch_core::{Query, TextRow};
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, PgConnection, Postgres};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::Failure;
use crate::run;

/// The pool's connection: here, or with a flush that runs while the program goes on.
#[derive(Debug)]
pub(crate) enum Line {
    Here(PoolConnection<Postgres>),
    Away(JoinHandle<(PoolConnection<Postgres>, Rows)>),
    Ended,
}

type Rows = Result<Vec<TextRow>, sqlx::Error>;

impl Line {
    pub(crate) fn conn(&mut self) -> Result<&mut PgConnection, Failure> {
        match self {
            Self::Here(conn) => Ok(conn),
            // The engine has everything that is sent wait for it to be back.
            Self::Away(_) | Self::Ended => Err(Failure::Refused("the transaction has ended".into())),
        }
    }

    /// The connection, when it is back.
    pub(crate) async fn into_conn(self) -> Option<PoolConnection<Postgres>> {
        match self {
            Self::Here(conn) => Some(conn),
            Self::Away(flight) => flight.await.ok().map(|(conn, _)| conn),
            Self::Ended => None,
        }
    }
}

impl batch_core::drive::Line for Line {
    type Error = Failure;

    fn keep(error: Failure) -> batch_core::Failure {
        batch_core::Failure::new(error)
    }

    fn give(failure: &batch_core::Failure) -> Failure {
        match failure.error::<Failure>() {
            Some(error) => (*error).clone(),
            None => <Self as batch_core::drive::Line>::refused(batch_core::Error::lost()),
        }
    }

    async fn run(&mut self, query: &Query) -> Result<Vec<TextRow>, Failure> {
        Ok(run::run(self.conn()?, query).await?)
    }

    fn launch(&mut self, query: Query) -> Result<(), Query> {
        let Ok(runtime) = Handle::try_current() else { return Err(query) };
        match std::mem::replace(self, Self::Ended) {
            Self::Here(mut conn) => {
                *self = Self::Away(runtime.spawn(async move {
                    let result = run::run(&mut conn, &query).await;
                    (conn, result)
                }));
                Ok(())
            }
            other => {
                *self = other;
                Err(query)
            }
        }
    }

    fn has_landed(&self) -> bool {
        matches!(self, Self::Away(flight) if flight.is_finished())
    }

    async fn land(&mut self) -> Result<Vec<TextRow>, Failure> {
        let Self::Away(flight) = self else { return Ok(Vec::new()) };
        // Its runtime may have been shut down meanwhile, and the connection with it.
        let (line, result) = match flight.await {
            Ok((conn, result)) => (Self::Here(conn), result),
            Err(_) => (Self::Ended, Err(sqlx::Error::WorkerCrashed)),
        };
        *self = line;
        Ok(result?)
    }

    async fn yield_now(&self) {
        tokio::task::yield_now().await;
    }

    fn refused(error: batch_core::Error) -> Failure {
        Failure::Refused(error.to_string())
    }
}
