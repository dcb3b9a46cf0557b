//! Rows that come from Postgres or from the engine, and what rows that nobody reads may still say.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use batch_core::{Batch, Rows};
use diesel::result::QueryResult;
use diesel_async::AsyncConnectionCore;
use futures_util::stream::{BoxStream, Stream, StreamExt};

use super::run::Inner;
use crate::row::{Answered, Row};

/// A row of diesel-async's.
pub(super) type InnerRow = <Inner as AsyncConnectionCore>::Row<'static, 'static>;

type InnerStream = BoxStream<'static, QueryResult<InnerRow>>;

/// The rows of a query: from Postgres, or from the engine where an INSERT waits.
#[allow(missing_debug_implementations, reason = "diesel-async's streams have none")]
pub struct RowStream(Source);

enum Source {
    Postgres(InnerStream),
    /// In a transaction.
    Watched(Watched),
    Engine(Answered),
}

/// Rows whose statement may still fail, and the transaction with it.
struct Watched {
    rows: InnerStream,
    unread: Unread,
    ended: bool,
}

impl RowStream {
    pub(super) fn postgres(rows: InnerStream) -> Self {
        Self(Source::Postgres(rows))
    }

    pub(super) fn watched(rows: InnerStream, unread: &Unread) -> Self {
        unread.lock().open += 1;
        Self(Source::Watched(Watched { rows, unread: unread.clone(), ended: false }))
    }

    pub(super) fn engine(rows: Rows) -> Self {
        Self(Source::Engine(Answered::new(rows)))
    }
}

impl Stream for RowStream {
    type Item = QueryResult<Row<InnerRow>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = match &mut self.0 {
            Source::Postgres(rows) => ready!(rows.poll_next_unpin(context)),
            Source::Watched(rows) => ready!(rows.poll_next(context)),
            Source::Engine(rows) => return Poll::Ready(rows.next()),
        };
        Poll::Ready(row.map(|row| row.map(Row::postgres)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Source::Postgres(rows) => rows.size_hint(),
            Source::Watched(watched) => watched.rows.size_hint(),
            Source::Engine(rows) => rows.left().size_hint(),
        }
    }
}

impl Watched {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<QueryResult<InnerRow>>> {
        let row = ready!(self.rows.poll_next_unpin(context));
        if !self.ended && !matches!(row, Some(Ok(_))) {
            self.ended = true;
            let mut unread = self.unread.lock();
            unread.open -= 1;
            unread.failed |= row.is_some();
        }
        Poll::Ready(row)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            let rows = std::mem::replace(&mut self.rows, futures_util::stream::empty().boxed());
            let mut unread = self.unread.lock();
            unread.open -= 1;
            unread.left.push(rows);
        }
    }
}

/// What is known of the statements of a transaction whose rows were not read to their end: they fail where they fail, not
/// where somebody reads them.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Streams that somebody still holds.
    open: usize,
    /// The rest of streams that were dropped.
    left: Vec<InnerStream>,
    failed: bool,
}

impl Unread {
    /// Finds out whether the statements before the next one have failed.
    pub(super) async fn settle(&self, batch: &mut Batch) {
        while let Some((mut rows, failed_before)) = self.take_left() {
            let mut failed = false;
            while let Some(row) = rows.next().await {
                failed |= row.is_err();
            }
            self.lock().failed = failed_before || failed;
        }
        let mut unread = self.lock();
        if std::mem::take(&mut unread.failed) || unread.open > 0 {
            // Rows that somebody still reads may fail unseen: in doubt nothing waits any more in this transaction.
            batch.failed_late();
        }
    }

    /// A rest, and whether something has failed. Until the rest is read it counts as failed: its reader may be dropped.
    fn take_left(&self) -> Option<(InnerStream, bool)> {
        let mut unread = self.lock();
        let rows = unread.left.pop()?;
        Some((rows, std::mem::replace(&mut unread.failed, true)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
