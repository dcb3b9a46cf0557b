//! Streams of rows, and how long they took.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use sea_orm::{DbErr, QueryResult, Statement};

use crate::connection::{Metric, RowStream};

/// Tells the metric callback of a stream when it is dropped, as SeaORM's own streams do: the time spent in reading it.
pub(crate) struct Measured<'a> {
    rows: RowStream<'a>,
    metric: Metric,
    statement: Statement,
    elapsed: Duration,
}

impl<'a> Measured<'a> {
    pub(crate) fn new(rows: RowStream<'a>, metric: Metric, statement: Statement) -> Self {
        Self { rows, metric, statement, elapsed: Duration::ZERO }
    }
}

impl Stream for Measured<'_> {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let start = Instant::now();
        let row = self.rows.as_mut().poll_next(cx);
        self.elapsed += start.elapsed();
        row
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        // SeaORM's say that they did not fail, whatever they read.
        (self.metric)(&sea_orm::metric::Info { elapsed: self.elapsed, statement: &self.statement, failed: false });
    }
}
