//! Runs the engine's statements on diesel-async's connection.

use std::sync::Arc;

use batch_core::drive::Line;
use batch_core::group::{self, Joined, Pass, Request};
use batch_core::{Failure, Purpose, Query, Rows, TextRow};
use diesel::result::{Error, QueryResult};
use diesel_async::{AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::{TryStreamExt, future};
use tokio::runtime::Handle;

use super::flight::Flight;
use super::group::{Caller, Led};
use crate::bind::EngineQuery;
use crate::error;
use crate::run::text_row;

/// The connection that everything is sent on.
pub(super) type Inner = diesel_async::AsyncPgConnection;

/// The connection, and the flush on it that runs while the program goes on.
pub(super) struct Wire<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) flight: &'a mut Flight,
    pub(super) led: &'a mut Led,
}

impl Line for Wire<'_> {
    type Error = Error;

    fn keep(error: Error) -> Failure {
        error::keep(error)
    }

    fn give(failure: &Failure) -> Error {
        error::give(failure)
    }

    async fn run(&mut self, query: &Query) -> QueryResult<Vec<TextRow>> {
        self.led.settle().await;
        run(self.inner, query).await
    }

    fn launch(&mut self, query: Query) -> Result<(), Query> {
        self.flight.launch(self.inner, query)
    }

    fn has_landed(&self) -> bool {
        self.flight.has_landed()
    }

    async fn land(&mut self) -> QueryResult<Vec<TextRow>> {
        self.flight.land().await
    }

    async fn yield_now(&self) {
        tokio::task::yield_now().await;
    }

    async fn join(&mut self, request: Request) -> Joined<Rows, Error> {
        // Timers and tasks are the runtime's.
        match Handle::try_current() {
            Ok(_) => group::join(&mut Caller { inner: self.inner, led: self.led }, request).await,
            Err(_) => Joined::Alone(Pass::free()),
        }
    }

    fn refused(error: batch_core::Error) -> Error {
        error::refusal(error)
    }
}

pub(super) async fn run(mut inner: &Inner, query: &Query) -> QueryResult<Vec<TextRow>> {
    if query.purpose == Purpose::Control {
        return inner.batch_execute(&query.sql).await.map(|()| Vec::new());
    }
    let mut before = inner;
    let rows = async { inner.load(EngineQuery(query)).await?.and_then(async |row| text_row(&row)).try_collect().await };
    if !query.begins {
        return rows.await;
    }
    // Polled in this order, and each sends what it sends first when it is polled first.
    let (begun, rows) = future::join(before.batch_execute("BEGIN"), rows).await;
    begun.and(rows)
}
