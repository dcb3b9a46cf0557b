//! A flush that runs while the program goes on.

use std::sync::Arc;

use batch_core::{Query, TextRow};
use diesel::result::QueryResult;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::run::{self, Inner};
use crate::error;

/// The query that was launched, if there is one. It shares the connection until it is done.
#[derive(Default)]
pub(super) enum Flight {
    #[default]
    None,
    Away(JoinHandle<Rows>),
    Landed(Rows),
}

type Rows = QueryResult<Vec<TextRow>>;

impl Flight {
    /// Runs the query while the program goes on, which needs a runtime; gives it back otherwise.
    pub(super) fn launch(&mut self, inner: &Arc<Inner>, query: Query) -> Result<(), Query> {
        let Ok(runtime) = Handle::try_current() else { return Err(query) };
        let inner = Arc::clone(inner);
        *self = Self::Away(runtime.spawn(async move { run::run(&inner, &query).await }));
        Ok(())
    }

    pub(super) fn has_landed(&self) -> bool {
        match self {
            Self::None => false,
            Self::Away(task) => task.is_finished(),
            Self::Landed(_) => true,
        }
    }

    /// Waits for the query that was launched.
    pub(super) async fn wait(&mut self) {
        if let Self::Away(task) = self {
            // Its runtime may have been shut down meanwhile.
            let rows = task.await.unwrap_or_else(|_| Err(error::missing()));
            *self = Self::Landed(rows);
        }
    }

    /// Waits for the query that was launched, and gives its result.
    pub(super) async fn land(&mut self) -> Rows {
        self.wait().await;
        match std::mem::take(self) {
            Self::Landed(rows) => rows,
            Self::None | Self::Away(_) => Ok(Vec::new()),
        }
    }
}
