//! Group commit: Diesel's connection as a caller that joins a group, and as one that leads it.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use batch_core::group::{self, Failure, Group, Joined, Leader, Member, Request, RowsAndIds, Shutdown};
use batch_core::{Batch, Field, Query, Rows, TextRow};
use diesel::PgConnection;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::row::{Field as _, Row};

use crate::bind::EngineQuery;
use crate::run;

/// Lets an INSERT join a group; this thread waits, or leads one on this connection.
pub(crate) fn join(conn: &mut PgConnection, request: Request) -> Joined<Rows, Error> {
    block_on(group::join(&mut Caller { conn }, request))
}

/// See [`Batch::shut_down_groups`].
pub(crate) fn shut_down(batch: &Batch, timeout: Duration) -> Shutdown {
    block_on(batch.shut_down_groups::<Rows, Error, _>(Until(Instant::now() + timeout)))
}

struct Caller<'a> {
    conn: &'a mut PgConnection,
}

impl Member for Caller<'_> {
    type Row = Rows;
    type Error = Error;

    async fn sleep(time: Duration) {
        Until(Instant::now() + time).await;
    }

    async fn lead(&mut self, group: Group<Rows, Error>) {
        group.send(self).await;
    }
}

impl Leader for Caller<'_> {
    type Row = Rows;
    type Error = Error;

    const RECONNECTS: bool = false;

    async fn ask(&mut self, query: &Query) -> QueryResult<Vec<TextRow>> {
        run::run(self.conn, query)
    }

    async fn rows(&mut self, query: &Query, fields: &Arc<[Field]>) -> QueryResult<Vec<Rows>> {
        let rows = LoadConnection::<DefaultLoadingMode>::load(self.conn, EngineQuery(query))?;
        rows.map(|row| Ok(one(&row?, fields))).collect()
    }

    async fn rows_and_ids(&mut self, query: &Query, fields: &Arc<[Field]>) -> QueryResult<RowsAndIds<Rows>> {
        let mut ids = None;
        let rows = LoadConnection::<DefaultLoadingMode>::load(self.conn, EngineQuery(query))?;
        let rows: QueryResult<_> = rows.map(|row| Ok(one_and_ids(&row?, fields, &mut ids))).collect();
        Ok((rows?, ids))
    }

    fn value(row: &Rows, column: usize) -> Option<&[u8]> {
        row.get(0, column)
    }

    fn failure(error: &Error) -> Failure {
        failure(error)
    }

    fn lost(error: batch_core::Error) -> Error {
        lost(&error)
    }

    async fn sleep(time: Duration) {
        Until(Instant::now() + time).await;
    }
}

/// A row as the engine keeps it: it may be another thread's, and Diesel's own rows stay on theirs.
pub(crate) fn one<'a>(row: &impl Row<'a, diesel::pg::Pg>, fields: &Arc<[Field]>) -> Rows {
    let cells: Vec<_> = (0..fields.len()).map(|at| row.get(at)).collect();
    Rows::one(
        fields,
        cells.iter().map(|cell| cell.as_ref().and_then(|field| field.value()).map(|value| value.as_bytes())),
    )
}

/// The same of a row with a text behind those columns, if it has one.
pub(crate) fn one_and_ids<'a>(
    row: &impl Row<'a, diesel::pg::Pg>,
    fields: &Arc<[Field]>,
    ids: &mut Option<String>,
) -> Rows {
    let text = row.get(fields.len());
    if let Some(text) = text.as_ref().and_then(|field| field.value()) {
        *ids = Some(String::from_utf8_lossy(text.as_bytes()).into_owned());
    }
    one(row, fields)
}

/// Diesel tells some of Postgres' codes by its kinds. The others it keeps for itself; their messages, where they are in
/// English, tell two more.
pub(crate) fn failure(error: &Error) -> Failure {
    match error {
        Error::DatabaseError(kind, about) => match kind {
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => Failure::Lost,
            DatabaseErrorKind::SerializationFailure => Failure::Serialization,
            DatabaseErrorKind::UniqueViolation => Failure::Unique,
            _ => match about.message() {
                "deadlock detected" => Failure::Deadlock,
                "canceling statement due to lock timeout" => Failure::LockTimeout,
                _ => Failure::Other,
            },
        },
        _ => Failure::Other,
    }
}

pub(crate) fn lost(error: &batch_core::Error) -> Error {
    Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(error.to_string()))
}

thread_local! {
    /// When the future that this thread runs has to be looked at, if nobody wakes it before.
    static ALARM: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs a future on this thread, which sleeps while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        ALARM.set(None);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        match ALARM.get() {
            Some(alarm) => thread::park_timeout(alarm.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

/// A point in time, for [`block_on`], which sleeps no longer than until then.
struct Until(Instant);

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.0 {
            return Poll::Ready(());
        }
        ALARM.set(Some(ALARM.get().map_or(self.0, |alarm| alarm.min(self.0))));
        Poll::Pending
    }
}
