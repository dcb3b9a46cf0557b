//! Runs the engine's statements on diesel-async's connection.

use std::sync::Arc;

use batch_core::{Answer, Batch, Binds, Cause, Purpose, Query, Recognised, Running, Step, TextRow};
use diesel::result::QueryResult;
use diesel_async::{AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::{TryStreamExt, future};

use super::flight::Flight;
use crate::bind::EngineQuery;
use crate::error;
use crate::run::text_row;

/// The connection that everything is sent on.
pub(super) type Inner = diesel_async::AsyncPgConnection;

/// What a statement is answered with, or that it is to be sent; then [`Running::sent`] has to be called.
pub(super) enum Outcome<'a> {
    Answer(Answer),
    Send(Running<'a>),
}

/// Offers a statement and does what the engine says.
pub(super) async fn offer<'a>(
    (inner, flight): (&Arc<Inner>, &mut Flight),
    batch: &'a mut Batch,
    recognised: Arc<Recognised>,
    binds: Binds,
) -> QueryResult<Outcome<'a>> {
    if flight.has_landed() {
        batch.landed();
    }
    if batch.is_time_to_yield() {
        tokio::task::yield_now().await;
    }
    let mut running = Running::new(batch);
    let step = running.batch().offer(recognised, binds);
    drive((inner, flight), running, step).await
}

/// Does what the engine says until there is an answer or the statement is to be sent.
pub(super) async fn drive<'a>(
    (inner, flight): (&Arc<Inner>, &mut Flight),
    mut running: Running<'a>,
    mut step: Step,
) -> QueryResult<Outcome<'a>> {
    let mut cause = Cause::default();
    loop {
        step = match step {
            Step::Send => return Ok(Outcome::Send(running)),
            Step::Answer(answer) => {
                running.done();
                return Ok(Outcome::Answer(answer));
            }
            Step::Refuse(refused) => {
                running.done();
                return Err(error::refusal(refused));
            }
            Step::Raise => {
                running.done();
                return Err(cause.into_error().unwrap_or_else(error::missing));
            }
            Step::Land => match flight.land().await {
                Ok(rows) => running.batch().ran(&rows),
                Err(error) => {
                    cause.note(Purpose::Flush, error);
                    running.batch().failed()
                }
            },
            Step::Run(query) => {
                let launched = if query.ahead { flight.launch(inner, query) } else { Err(query) };
                match launched {
                    Ok(()) => running.batch().launched(),
                    Err(query) => match run(inner, &query).await {
                        Ok(rows) => running.batch().ran(&rows),
                        Err(error) => {
                            cause.note(query.purpose, error);
                            running.batch().failed()
                        }
                    },
                }
            }
        };
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
