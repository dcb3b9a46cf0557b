//! Group commit: diesel-async's connection as a caller that joins a group, and as one that leads it.

use std::sync::Arc;
use std::time::Duration;

use batch_core::group::{Failure, Group, Leader, Member, RowsAndIds};
use batch_core::{Field, Query, Rows, TextRow};
use diesel::result::{Error, QueryResult};
use diesel_async::AsyncConnectionCore;
use futures_util::TryStreamExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time;

use super::run::{self, Inner};
use crate::bind::EngineQuery;
use crate::group;

/// A group that this connection leads. It goes on if the caller is dropped; nothing else may be sent meanwhile, as it would
/// come between.
#[derive(Default)]
pub(super) struct Led(Option<JoinHandle<()>>);

impl Led {
    /// Waits until the group is done.
    pub(super) async fn settle(&mut self) {
        if let Some(task) = &mut self.0 {
            // A task that was stopped has told its members.
            let _ = task.await;
            self.0 = None;
        }
    }
}

pub(super) struct Caller<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) led: &'a mut Led,
}

impl Member for Caller<'_> {
    type Row = Rows;
    type Error = Error;

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }

    async fn lead(&mut self, group: Group<Rows, Error>) {
        let mut connection = Connection(Arc::clone(self.inner));
        match Handle::try_current() {
            Ok(runtime) => {
                self.led.settle().await;
                self.led.0 = Some(runtime.spawn(async move { group.send(&mut connection).await }));
                self.led.settle().await;
            }
            Err(_) => group.send(&mut connection).await,
        }
    }
}

struct Connection(Arc<Inner>);

impl Leader for Connection {
    type Row = Rows;
    type Error = Error;

    const RECONNECTS: bool = false;

    async fn ask(&mut self, query: &Query) -> QueryResult<Vec<TextRow>> {
        run::run(&self.0, query).await
    }

    async fn rows(&mut self, query: &Query, fields: &Arc<[Field]>) -> QueryResult<Vec<Rows>> {
        let mut inner = &*self.0;
        let rows = inner.load(EngineQuery(query)).await?;
        rows.and_then(async |row| Ok(group::one(&row, fields))).try_collect().await
    }

    async fn rows_and_ids(&mut self, query: &Query, fields: &Arc<[Field]>) -> QueryResult<RowsAndIds<Rows>> {
        let mut inner = &*self.0;
        let mut found = inner.load(EngineQuery(query)).await?;
        let (mut rows, mut ids) = (Vec::new(), None);
        while let Some(row) = found.try_next().await? {
            rows.push(group::one_and_ids(&row, fields, &mut ids));
        }
        Ok((rows, ids))
    }

    fn value(row: &Rows, column: usize) -> Option<&[u8]> {
        row.get(0, column)
    }

    fn failure(error: &Error) -> Failure {
        group::failure(error)
    }

    fn lost(error: batch_core::Error) -> Error {
        group::lost(&error)
    }

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }
}
