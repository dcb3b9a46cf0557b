//! Runs the engine's statements on Diesel's connection.

use batch_core::{Answer, Batch, Purpose, Query, Step, TextRow};
use diesel::PgConnection;
use diesel::connection::{DefaultLoadingMode, LoadConnection, SimpleConnection};
use diesel::result::{Error, QueryResult};
use diesel::row::{Field, Row};

use crate::bind::EngineQuery;
use crate::inner::Inner;
use crate::{error, group};

/// Does what the engine says until there is an answer; `None` where the statement is to be sent.
pub(crate) fn drive(inner: &mut Inner, batch: &mut Batch, mut step: Step) -> QueryResult<Option<Answer>> {
    loop {
        step = match step {
            Step::Send => return Ok(None),
            Step::Answer(answer) => return Ok(Some(answer)),
            Step::Refuse(refused) => return Err(error::refusal(refused)),
            Step::Raise(failure) => return Err(error::give(&failure)),
            // Nothing is launched here that could land.
            Step::Land => return Err(error::missing()),
            Step::Join(request) => {
                let joined = group::join(&mut inner.conn, *request);
                batch.joined(joined, error::keep)
            }
            Step::Run(query) => {
                let count = inner.take_count(batch.holds_back_begin());
                let next = match run(&mut inner.conn, &query) {
                    Ok(rows) => batch.ran(&rows),
                    Err(error) => batch.failed(error::keep(error)),
                };
                // A flush that is the whole transaction has ended it.
                inner.put_back(count.filter(|_| batch.is_in_transaction()));
                next
            }
        };
    }
}

pub(crate) fn run(inner: &mut PgConnection, query: &Query) -> QueryResult<Vec<TextRow>> {
    if query.purpose == Purpose::Control {
        return inner.batch_execute(&query.sql).map(|()| Vec::new());
    }
    // A flush is loaded even if it returns no rows: `execute` takes its query by reference, and for a reference Diesel
    // collects binds in another way.
    let rows = LoadConnection::<DefaultLoadingMode>::load(inner, EngineQuery(query))?;
    rows.map(|row| text_row(&row?)).collect()
}

pub(crate) fn text_row<'a>(row: &impl Row<'a, diesel::pg::Pg>) -> QueryResult<TextRow> {
    (0..row.field_count())
        .map(|at| match row.get(at).as_ref().and_then(|field| field.value().map(|value| value.as_bytes().to_vec())) {
            None => Ok(None),
            Some(bytes) => String::from_utf8(bytes).map(Some).map_err(|e| Error::DeserializationError(Box::new(e))),
        })
        .collect()
}
